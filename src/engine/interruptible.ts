// The same protocol, but nobody waits for an answer past the signal; what is carried out later is fenced off by its term.
import type { PeerConnection } from "./engine-options.ts";

/** A connection whose calls reject as soon as the signal aborts. */
export function interruptible(connection: PeerConnection, signal: AbortSignal): PeerConnection {
  return {
    ...connection,
    api: interruptibleCalls(connection.api, signal),
    at: (member) => interruptibleCalls(connection.at(member), signal),
  };
}

/** The same calls, which reject as soon as the signal aborts. */
export function interruptibleCalls<Api extends object>(api: Api, signal: AbortSignal): Api {
  return new Proxy(api, {
    get(_, method) {
      const call = Reflect.get(api, method) as (...args: unknown[]) => Promise<unknown>;
      return (...args: unknown[]) => orAborted(() => call.apply(api, args), signal);
    },
  });
}

async function orAborted<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([call(), promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
