// Waiting that an AbortSignal ends, and work that a deadline ends.
import type { Clock } from "../base/clock.ts";

/** The promise's result; rejects with the signal's reason as soon as it aborts. The promise itself goes on. */
export async function orAborted<R>(promise: Promise<R>, signal: AbortSignal): Promise<R> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Runs `work` with a signal that aborts when `signal` does, or with `late` as its reason after `timeoutMs`. */
export async function withDeadline<R>(
  {
    clock,
    timeoutMs,
    signal,
    late,
  }: {
    readonly clock: Clock;
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
    readonly late: Error;
  },
  work: (signal: AbortSignal) => Promise<R>,
): Promise<R> {
  const ended = new AbortController();
  const deadline = new AbortController();
  const timer = clock.sleep(timeoutMs, ended.signal).then(
    () => deadline.abort(late),
    () => undefined, // The work ended in time.
  );
  try {
    return await work(AbortSignal.any([signal, deadline.signal]));
  } finally {
    ended.abort();
    await timer;
  }
}
