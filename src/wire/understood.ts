// Agents of two neighbouring versions side by side: bodies of requests are strict, so what a later version adds to one is refused by
// an earlier one. Each addition has a name in the table of routes; an agent says which names it understands when it is greeted, and
// whoever sends to it leaves out the others.
import { memberRoutes, peerRoutes, type Route } from "./routes.ts";

/** What an agent of this version says that it understands. */
export function understoodHere(): string[] {
  const routes: readonly Route[] = Object.values({ ...memberRoutes, ...peerRoutes });
  return [...new Set(routes.flatMap(({ newer = {} }) => Object.keys(newer)))].sort();
}

/** Names of those additions to the route's body that this body has. */
export function additionsIn({ newer = {} }: Route, body: unknown): string[] {
  return Object.entries(newer).flatMap(([name, fields]) => (fields.some((field) => has(body, field)) ? [name] : []));
}

/** The body as an agent takes it that understands no more than these. */
export function fitted({ newer = {} }: Route, body: unknown, understood: ReadonlySet<string>): unknown {
  const foreign = Object.entries(newer).flatMap(([name, fields]) => (understood.has(name) ? [] : fields));
  return foreign.reduce<unknown>((rest, field) => without(rest, field.split(".")), body);
}

function has(value: unknown, field: string): boolean {
  return valuesAt(value, field.split(".")).some((found) => found !== undefined);
}

function valuesAt(value: unknown, [head, ...rest]: readonly string[]): unknown[] {
  if (head === undefined) return [value];
  if (head === "*") return Array.isArray(value) ? value.flatMap((item: unknown) => valuesAt(item, rest)) : [];
  return isRecord(value) ? valuesAt(value[head], rest) : [];
}

/** All else as it was, in its order: what is kept as text is compared as text. */
function without(value: unknown, [head, ...rest]: readonly string[]): unknown {
  if (head === "*") return Array.isArray(value) ? value.map((item: unknown) => without(item, rest)) : value;
  if (head === undefined || !isRecord(value)) return value;
  const kept = Object.entries(value).filter(([name]) => name !== head || rest.length > 0);
  return Object.fromEntries(kept.map(([name, inner]) => [name, name === head ? without(inner, rest) : inner]));
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
