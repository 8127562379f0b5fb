// Virtual time: one queue of events for the whole world. Between two events every promise that can settle settles, so
// whatever happens happens in an order that follows from the seed alone.
import type { Clock } from "../../src/base/clock.ts";

/** Whose event it is: the events of one that is suspended wait, those of one that is dead are dropped. */
export interface Owner {
  readonly isDead: boolean;
  readonly suspendedUntilMs: number;
}

interface Event {
  atMs: number;
  order: number;
  readonly owner: Owner | undefined;
  run: (() => void) | undefined;
  /** Called instead of `run` when it never will be: its owner is dead, or the world is over. */
  readonly dropped: (() => void) | undefined;
}

/** Takes the event back; one that has run or was taken back already is left alone. */
export type Cancel = () => void;

export class Timeline {
  nowMs = 0;
  /** Events so far. */
  count = 0;
  private order = 0;
  private readonly heap: Event[] = [];

  /** Runs `run` after `delayMs`; events of one moment run in the order of asking. */
  after(delayMs: number, owner: Owner | undefined, run: () => void, dropped?: () => void): Cancel {
    const event: Event = { atMs: this.nowMs + Math.max(0, delayMs), order: this.order++, owner, run, dropped };
    this.push(event);
    return () => {
      event.run = undefined;
    };
  }

  /** Resolves after `delayMs`, unless the owner dies before: then never. */
  pause(delayMs: number, owner: Owner | undefined): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, owner, resolve));
  }

  /** Lets time pass until `untilMs`, or until `isOver` says so between two events. */
  async run(untilMs: number, isOver: () => boolean): Promise<void> {
    await settled();
    for (let next = this.heap[0]; next !== undefined && next.atMs <= untilMs && !isOver(); next = this.heap[0]) {
      this.pop();
      const { owner, run } = next;
      if (run === undefined || owner?.isDead === true) {
        next.dropped?.();
        continue;
      }
      if (owner !== undefined && owner.suspendedUntilMs > next.atMs) {
        next.atMs = owner.suspendedUntilMs;
        this.push(next);
        continue;
      }
      this.nowMs = next.atMs;
      this.count++;
      run();
      await settled();
    }
    if (!isOver()) this.nowMs = Math.max(this.nowMs, untilMs);
  }

  /** Nothing happens any more. */
  close(): void {
    for (const { dropped } of this.heap) dropped?.();
    this.heap.length = 0;
  }

  private push(event: Event): void {
    const { heap } = this;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(event, heap[above] as Event)) break;
      heap[at] = heap[above] as Event;
      at = above;
    }
    heap[at] = event;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop() as Event;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1] as Event, heap[below] as Event)) below++;
      if (!isBefore(heap[below] as Event, last)) break;
      heap[at] = heap[below] as Event;
      at = below;
    }
    heap[at] = last;
  }
}

function isBefore(left: Event, right: Event): boolean {
  return left.atMs < right.atMs || (left.atMs === right.atMs && left.order < right.order);
}

/** Resolves once every promise that can settle without an event has settled: ticks run when no promise is left to. */
function settled(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve));
}

const epochMs = Date.parse("2026-01-01T00:00:00Z");

/** The clock of one process: its wall may be set, its monotonic one begins anew with it, and a dead one never wakes. */
export function simClock(timeline: Timeline, owner: Owner, wall: { readonly skewMs: number }): Clock {
  const startMs = timeline.nowMs;
  return {
    nowMs: () => epochMs + Math.floor(timeline.nowMs + wall.skewMs),
    monotonicMs: () => timeline.nowMs - startMs,
    sleep: (durationMs, signal) =>
      new Promise((resolve, reject) => {
        if (owner.isDead) return;
        if (signal?.aborted) return reject(signal.reason);
        const abort = () => {
          cancel();
          reject(signal?.reason);
        };
        const unlisten = () => signal?.removeEventListener("abort", abort);
        const wake = () => {
          unlisten();
          resolve();
        };
        // A signal made of others is kept, with all that listens to it, for as long as somebody does.
        const cancel = timeline.after(durationMs, owner, wake, unlisten);
        signal?.addEventListener("abort", abort, { once: true });
      }),
  };
}
