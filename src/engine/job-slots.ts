// The ledger of jobs under way: which may be driven now, within the limits of the node and of each location. A job that
// waits before its next attempt takes no room, so one location that is down does not hold up the others.
import type { JobRow } from "./job-rows.ts";

export interface SlotLimits {
  readonly node: number;
  location(name: string): number;
}

export interface Slot {
  readonly row: JobRow;
  /** Aborted when the user wants something else of the job; a fresh one for each step. */
  stop: AbortController;
  isActive: boolean;
}

export class JobSlots {
  private readonly limits: SlotLimits;
  private readonly slots = new Map<string, Slot>();
  private readonly waiting: { readonly slot: Slot; readonly go: () => void }[] = [];

  constructor(limits: SlotLimits) {
    this.limits = limits;
  }

  find(name: string): Slot | undefined {
    return this.slots.get(name);
  }

  /** A slot for a job that has none, if there is room and no other job of its volume and location is under way. */
  take(row: JobRow): Slot | undefined {
    const isPairTaken = [...this.slots.values()].some(
      (other) => other.row.owner === row.owner && other.row.location === row.location,
    );
    if (isPairTaken || !this.hasRoom(row)) return undefined;
    const slot = { row, stop: new AbortController(), isActive: true };
    this.slots.set(row.name, slot);
    return slot;
  }

  /** Makes room while the job waits for its next attempt. */
  pause(slot: Slot): void {
    slot.isActive = false;
    this.wake();
  }

  /** Resolves when there is room again, or when the signal ends the wait. */
  async resume(slot: Slot, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const entry = { slot, go: resolve };
    this.waiting.push(entry);
    const give = () => resolve();
    signal.addEventListener("abort", give, { once: true });
    this.wake();
    if (signal.aborted) give();
    await promise;
    signal.removeEventListener("abort", give);
    const at = this.waiting.indexOf(entry);
    if (at >= 0) this.waiting.splice(at, 1);
    // Whoever is asked to stop goes on at once, to do so.
    slot.isActive = true;
  }

  drop(slot: Slot): void {
    this.slots.delete(slot.row.name);
    this.wake();
  }

  private wake(): void {
    for (const entry of [...this.waiting]) {
      if (!this.hasRoom(entry.slot.row)) continue;
      this.waiting.splice(this.waiting.indexOf(entry), 1);
      entry.slot.isActive = true;
      entry.go();
    }
  }

  private hasRoom(row: JobRow): boolean {
    const active = [...this.slots.values()].filter((slot) => slot.isActive);
    const there = active.filter((slot) => slot.row.location === row.location);
    return active.length < this.limits.node && there.length < this.limits.location(row.location);
  }
}
