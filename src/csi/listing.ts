// Lists in pages. A page begins behind the last entry of the one before it, by the order of ids and not by a count: what is made
// or deleted meanwhile shifts nothing, so an entry that is there all the time is on exactly one page.
import { CsiError } from "./status.ts";

/** So many entries are on a page at most, whatever was asked for; a message has its limits. */
const entriesMax = 1_000;

const tokenPrefix = "after:";

export interface PageRequest {
  /** Nought for as many as there are. */
  readonly maxEntries: number;
  /** Empty for the beginning. */
  readonly startingToken: string;
}

export interface Page<T> {
  readonly entries: readonly T[];
  /** Empty on the last page. */
  readonly nextToken: string;
}

/**
 * A page of the items, in the order of their ids. Throws INVALID_ARGUMENT for a negative number, and ABORTED for a token that no
 * page had, as the specification wants it.
 */
export function pageOf<T>(items: readonly T[], request: PageRequest, idOf: (item: T) => string): Page<T> {
  const after = readToken(request.startingToken);
  const max = limitOf(request.maxEntries);
  const left = items.filter((item) => idOf(item) > after).sort((a, b) => (idOf(a) < idOf(b) ? -1 : 1));
  const entries = left.slice(0, max);
  const last = entries.at(-1);
  return { entries, nextToken: last === undefined || left.length <= max ? "" : tokenPrefix + idOf(last) };
}

function limitOf(maxEntries: number): number {
  if (maxEntries < 0) throw new CsiError("INVALID_ARGUMENT", `max_entries is ${maxEntries}; it cannot be negative`);
  return maxEntries === 0 ? entriesMax : Math.min(maxEntries, entriesMax);
}

/** The id behind which to begin. No id is empty. */
function readToken(token: string): string {
  if (token === "") return "";
  if (token.startsWith(tokenPrefix) && token.length > tokenPrefix.length) return token.slice(tokenPrefix.length);
  throw new CsiError("ABORTED", `starting_token "${token}" is of no page; begin anew without one`);
}
