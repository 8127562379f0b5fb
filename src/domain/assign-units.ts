// Who reads and who stores which units of a plan. Where a volume has one home on each side there is nothing to choose; a
// backend whose images every node can reach has its units shared out.

export interface Assignment {
  /** Source agent that reads the units. */
  readonly reader: string;
  /** Target agent that stores them. */
  readonly storer: string;
  /** Inclusive ranges of unit indexes, ascending. */
  readonly ranges: readonly (readonly [first: number, last: number])[];
}

/**
 * Shares the units out in contiguous parts of about the same number of bytes, one for each pair of a reader and a storer:
 * as many pairs as the longer list has names, the shorter one repeated. Every unit is in exactly one part; parts
 * of no units are left out. The same facts give the same assignment on every node.
 */
export function assignUnits(facts: {
  /** Bytes of each unit, by index. */
  readonly unitBytes: readonly number[];
  readonly readers: readonly string[];
  readonly storers: readonly string[];
}): Assignment[] {
  const { unitBytes, readers, storers } = facts;
  const pairs = readers.length === 0 || storers.length === 0 ? 0 : Math.max(readers.length, storers.length);
  const ends = partEnds(unitBytes, pairs);
  const assignments: Assignment[] = [];
  for (let pair = 0, first = 0; pair < pairs; pair++) {
    const end = ends[pair] ?? first;
    const reader = readers[pair % readers.length];
    const storer = storers[pair % storers.length];
    if (end > first && reader !== undefined && storer !== undefined) {
      assignments.push({ reader, storer, ranges: [[first, end - 1]] });
    }
    first = end;
  }
  return assignments;
}

/** For each part the index after its last unit: where the bytes so far reach its fraction of the whole. */
function partEnds(unitBytes: readonly number[], parts: number): number[] {
  // A unit of holes costs a little as well, so that a plan of nothing but holes is shared out too.
  const costs = unitBytes.map((bytes) => bytes + 1);
  const total = costs.reduce((sum, cost) => sum + cost, 0);
  const ends: number[] = [];
  let at = 0;
  let done = 0;
  for (let part = 1; part <= parts; part++) {
    while (at < costs.length && (part === parts || done + (costs[at] ?? 0) / 2 <= (total * part) / parts)) {
      done += costs[at] ?? 0;
      at += 1;
    }
    ends.push(at);
  }
  return ends;
}
