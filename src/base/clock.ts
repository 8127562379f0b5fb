// The one place where time is read. Everything else gets a Clock, so that tests and the simulator can own time.

/** Wall time for what people and other machines read, monotonic time for what is measured, and waiting. */
export interface Clock {
  /** Milliseconds since the epoch; may jump when the machine's clock is set. */
  nowMs(): number;
  /** Milliseconds since an arbitrary start; never goes backwards. For durations, leases and deadlines. */
  monotonicMs(): number;
  /** Resolves after `durationMs` (at once for zero or less); rejects with `signal.reason` as soon as the signal aborts. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
}

/** Timers of Node.js overflow past this and fire at once, so longer waits are made of several. */
const timerMaxMs = 2 ** 31 - 1;

/** The machine's own clock. A pending sleep keeps the process alive. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(durationMs, signal) {
    for (let leftMs = Math.max(0, durationMs); leftMs >= 0; leftMs -= timerMaxMs) {
      await timer(Math.min(leftMs, timerMaxMs), signal);
    }
  },
};

function timer(durationMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      clearTimeout(handle);
      reject(signal?.reason);
    };
    const handle = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, durationMs);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
