// Who wants to know that something changed: the operator's change stream, and everybody who follows a job.
import type { Change } from "../wire/schemas.ts";

const keptMax = 4096;

export interface ChangeFeed {
  /** The newest change's number; a list read now contains everything up to it. */
  readonly sequence: number;
  publish(kind: Change["kind"], name: string): void;
  /** Changes after `since`, then those to come; begins with `resync` when some were forgotten. Ends with the signal. */
  follow(since: number, signal: AbortSignal): AsyncIterable<Change>;
}

/** `start` must exceed every number given out by an earlier life of this agent, so that its readers are told to resync. */
export function openChangeFeed(start: number): ChangeFeed {
  const kept: Change[] = [];
  const wakeups = new Set<() => void>();
  let sequence = start;
  const missed = (since: number) => since > sequence || since < start || since < sequence - kept.length;
  async function* follow(since: number, signal: AbortSignal) {
    let at = since;
    while (!signal.aborted) {
      if (missed(at)) {
        at = sequence;
        yield { sequence: at, kind: "resync", name: "" } as const;
        continue;
      }
      const next = kept[kept.length - (sequence - at)];
      if (next === undefined) await woken(wakeups, signal);
      else {
        at = next.sequence;
        yield next;
      }
    }
  }
  return {
    get sequence() {
      return sequence;
    },
    publish(kind, name) {
      sequence += 1;
      kept.push({ sequence, kind, name });
      if (kept.length > keptMax) kept.shift();
      for (const wake of wakeups) wake();
    },
    follow,
  };
}

function woken(wakeups: Set<() => void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      wakeups.delete(wake);
      signal.removeEventListener("abort", wake);
      resolve();
    };
    wakeups.add(wake);
    signal.addEventListener("abort", wake, { once: true });
  });
}
