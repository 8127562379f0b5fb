// A term is kept by saying so a few times in each lease. Whoever works under it learns by a signal when it is gone.
import type { Clock } from "../base/clock.ts";
import { codeOf } from "../domain/errors.ts";

export interface Renewal {
  /** Aborted with the caller's signal, and when the term is lost. */
  readonly signal: AbortSignal;
  /** Runs `work` while `renew` is called three times in each lease; the term counts from now on. */
  during<T>(term: { leaseMs: number; renew: () => Promise<void> }, work: () => Promise<T>): Promise<T>;
}

/** Prepares to keep a term that is about to be claimed. */
export function openRenewal(clock: Clock, signal: AbortSignal): Renewal {
  const lost = new AbortController();
  const running = AbortSignal.any([signal, lost.signal]);
  return {
    signal: running,
    async during(term, work) {
      const ended = new AbortController();
      const renewing = keepRenewing(clock, { ...term, signal: AbortSignal.any([ended.signal, signal]) }).catch(
        (error: unknown) => {
          if (!ended.signal.aborted) lost.abort(error);
        },
      );
      try {
        return await work();
      } finally {
        ended.abort();
        await renewing;
      }
    },
  };
}

/**
 * Renews until the signal ends it; rejects then, and when the term is lost: one lost renewal is not a lost term, but when
 * none gets through for a whole lease the other side has taken it away.
 */
export async function keepRenewing(
  clock: Clock,
  term: { readonly leaseMs: number; readonly renew: () => Promise<void>; readonly signal: AbortSignal },
): Promise<never> {
  let heardMs = clock.monotonicMs();
  for (;;) {
    await clock.sleep(term.leaseMs / 3, term.signal);
    try {
      await term.renew();
      heardMs = clock.monotonicMs();
    } catch (error) {
      const isOver = clock.monotonicMs() - heardMs >= term.leaseMs;
      if (codeOf(error) === "TermLost" || isOver) throw error;
    }
  }
}
