// The same protocol, but nobody waits for an answer past the signal; what is carried out later is fenced off by its term.
import { LongshoreError } from "../domain/errors.ts";
import type { MemberApi } from "../wire/member.ts";
import type { Core } from "./core.ts";
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

/** An answer that takes longer than a lease is silence: a cut network says nothing for as long as it is asked. */
export async function withinLease<T>(
  { clock, limits, members }: Pick<Core, "clock" | "limits" | "members">,
  { agentId, signal }: { agentId: string; signal: AbortSignal },
  ask: (api: MemberApi) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
  const done = new AbortController();
  const waiting = clock.sleep(limits.leaseMs, AbortSignal.any([done.signal, signal])).then(
    () => limit.abort(new LongshoreError("Timeout", `agent ${agentId} has not answered for a lease`)),
    () => undefined,
  );
  try {
    return await ask(interruptibleCalls(members.api(agentId), AbortSignal.any([signal, limit.signal])));
  } finally {
    done.abort();
    await waiting;
  }
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
