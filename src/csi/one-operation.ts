// One operation at a time on each volume, as the Container Storage Interface wants it: a second one is not queued but told to
// come back. Whoever retries after its own deadline so finds out that the first try is still at work.
import { CsiError } from "./status.ts";

export interface OneOperation {
  /** Runs `work`, unless something runs under this key already: that is ABORTED, and `work` does not begin. */
  run<T>(key: string, work: () => Promise<T>): Promise<T>;
}

/** `key` is shown to people: say what it names, as in `volume pvc-1`. */
export function oneOperationAtATime(): OneOperation {
  const running = new Set<string>();
  return {
    async run(key, work) {
      if (running.has(key)) throw new CsiError("ABORTED", `another operation on ${key} is under way; try again`);
      running.add(key);
      try {
        return await work();
      } finally {
        running.delete(key);
      }
    },
  };
}
