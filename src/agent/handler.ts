// The shape of what answers a request, apart from the HTTP server: typed by the route's schemas.
import type { Precondition } from "../wire/agent-api.ts";
import type { BodyOf, EventOf, ParamsOf, QueryOf, ResponseOf, Route } from "../wire/routes.ts";
import type { List } from "../wire/schemas.ts";
import type { Caller } from "./caller.ts";

export interface Request<R extends Route> {
  readonly params: ParamsOf<R>;
  readonly query: QueryOf<R>;
  readonly body: BodyOf<R>;
  readonly precondition: Precondition;
  readonly caller: Caller;
  /** Where the client's stream broke off, by the id of the last event it saw. */
  readonly lastEventId: string | undefined;
  /** Ends with the connection, or when the server stops. */
  readonly signal: AbortSignal;
}

/** `found`, `made`: 200, 201 with the body. `accepted`: 202, not done yet. `gone`: 204. */
export type Answer<R extends Route> =
  | { readonly kind: "found" | "made" | "accepted"; readonly body: Sendable<ResponseOf<R>> }
  | { readonly kind: "gone" }
  | {
      readonly kind: "events";
      readonly name: string;
      readonly events: AsyncIterable<EventOf<R>>;
      idOf(event: EventOf<R>): string;
    };

/** Lists may be read-only to us. */
type Sendable<T> = T extends { items: (infer I)[]; sequence: number } ? List<I> : T;

export type Handler<R extends Route> = (request: Request<R>) => Promise<Answer<R>>;
export type Handlers<T extends Record<string, Route>> = { readonly [K in keyof T]: Handler<T[K]> };

export const gone = { kind: "gone" } as const;

export function found<T>(body: T): { kind: "found"; body: T } {
  return { kind: "found", body };
}

/** The answer to a call that gives nothing back, once it is done. */
export async function done(call: Promise<void>): Promise<{ kind: "found"; body: Record<never, never> }> {
  await call;
  return found({});
}
