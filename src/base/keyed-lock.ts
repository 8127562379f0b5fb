// One at a time for each key, in the order of asking. Different keys do not wait for each other.

export interface KeyedLock {
  /** Runs `work` once everything asked for before under this key has ended, however it ended. */
  run<T>(key: string, work: () => Promise<T>): Promise<T>;
  /** Whether nothing runs or waits under this key. */
  isFree(key: string): boolean;
}

export function keyedLock(): KeyedLock {
  const tails = new Map<string, Promise<unknown>>();
  return {
    run(key, work) {
      const before = tails.get(key) ?? Promise.resolve();
      const result = before.then(work, work);
      // The tail never rejects: whoever waits behind a failed piece of work is not concerned by its failure.
      const tail = result.then(
        () => undefined,
        () => undefined,
      );
      tails.set(key, tail);
      void tail.then(() => {
        if (tails.get(key) === tail) tails.delete(key);
      });
      return result;
    },
    isFree: (key) => !tails.has(key),
  };
}
