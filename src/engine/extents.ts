// What is allocated in a snapshot, or what differs from an older one, in pages: for backups that take changed blocks only. The
// pages of one question follow each other at once, so what was found is kept for a while, 16 bytes an extent.
import { RunList } from "../base/run-list.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { ChangedExtent, Extent } from "../storage/backend.ts";
import type { ExtentQuery } from "../wire/agent-api.ts";
import { type ExtentPage, extentsPerPageMax } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import { basePoint, isPresent, type PointRow, sealedPoint } from "./points.ts";
import type { Snapshots } from "./snapshots.ts";
import type { VolumeRows } from "./volume-rows.ts";

/** What was found is forgotten when nobody has asked for a page of it for so long. */
const keptMs = 60_000;
/** How many answers are kept, and extents in all of them together; what was asked for last is kept in any case. */
const keptMax = 8;
const keptExtentsMax = 4_000_000;

/** What is asked about; content that was sealed never changes. */
interface Subject {
  readonly point: PointRow;
  readonly base: PointRow | undefined;
}

interface Kept {
  readonly found: Promise<RunList>;
  /** Undefined until it is known. */
  extents: number | undefined;
  /** On the monotonic clock. */
  usedMs: number;
}

export class Extents {
  private readonly core: Core;
  private readonly rows: VolumeRows;
  private readonly snapshots: Snapshots;
  /** By what was asked about; what was asked for last comes last. */
  private readonly kept = new Map<string, Kept>();

  constructor(core: Core, parts: { rows: VolumeRows; snapshots: Snapshots }) {
    this.core = core;
    this.rows = parts.rows;
    this.snapshots = parts.snapshots;
  }

  /** See AgentApi.listExtents. */
  async list(volume: string, snapshot: string, query: ExtentQuery): Promise<ExtentPage> {
    const asked = pageAsked(query);
    const subject = await this.subject(volume, snapshot, query.base);
    return { sizeBytes: subject.point.sizeBytes, ...pageOf(await this.runs(subject), asked) };
  }

  /** Now and then: forgets what nobody goes on reading; what is still being found out is waited for by somebody. */
  expire(): void {
    const before = this.core.clock.monotonicMs() - keptMs;
    for (const [key, { extents, usedMs }] of this.kept) {
      if (extents !== undefined && usedMs < before) this.kept.delete(key);
    }
  }

  private async subject(volume: string, snapshot: string, base: string | undefined): Promise<Subject> {
    const row = this.rows.row(volume);
    const point = await this.snapshots.readable(row, snapshot);
    const older = base === undefined ? undefined : await this.snapshots.readable(row, base);
    if (older !== undefined && older.position > point.position) {
      throw new LongshoreError("BadRequest", `base: snapshot ${base} of volume ${volume} is newer than ${snapshot}`);
    }
    return { point, base: older };
  }

  private async runs(subject: Subject): Promise<RunList> {
    const key = [subject.point, subject.base].map((row) => `${row?.owner}/${row?.pointId}`).join(" ");
    const usedMs = this.core.clock.monotonicMs();
    const kept: Kept = this.kept.get(key) ?? { found: this.find(subject), extents: undefined, usedMs };
    kept.usedMs = usedMs;
    this.kept.delete(key);
    this.kept.set(key, kept);
    try {
      const runs = await kept.found;
      kept.extents = runs.length;
      kept.usedMs = this.core.clock.monotonicMs();
      return runs;
    } catch (error) {
      if (this.kept.get(key) === kept) this.kept.delete(key);
      throw error;
    } finally {
      this.makeRoom();
    }
  }

  private makeRoom(): void {
    const extents = () => [...this.kept.values()].reduce((sum, one) => sum + (one.extents ?? 0), 0);
    for (const key of [...this.kept.keys()].slice(0, -1)) {
      if (this.kept.size <= keptMax && extents() <= keptExtentsMax) return;
      this.kept.delete(key);
    }
  }

  private async find(subject: Subject): Promise<RunList> {
    try {
      return await this.read(subject);
    } catch (error) {
      if (codeOf(error) !== "PointGone") throw error;
      // Which of them it was is found out, and noted, by looking for both.
      for (const row of [subject.point, subject.base]) if (row !== undefined) await isPresent(this.core, row);
      const text = `a file vanished while snapshot ${subject.point.name} was read`;
      throw new LongshoreError("SnapshotGone", text, { cause: error });
    }
  }

  private async read({ point, base }: Subject): Promise<RunList> {
    const { storage, log } = this.core;
    const allocated = async (row: PointRow) => (await storage.allocated(row.owner, sealedPoint(row))).extents;
    if (base === undefined) return joined(await allocated(point), []);
    const { mode, extents } = await storage.changed(point.owner, basePoint(base), sealedPoint(point));
    if (mode.kind === "delta") return joined(extents, []);
    log.warn({ point: point.pointId, base: base.pointId, reason: mode.reason }, "no sound difference; all is told");
    // What neither has is zeros in both; anything else may differ.
    return joined(await allocated(point), await allocated(base));
  }
}

interface Page {
  readonly from: number;
  readonly max: number;
}

/** Throws `BadRequest` for what no page can be. */
function pageAsked({ from = 0, max = extentsPerPageMax }: ExtentQuery): Page {
  if (!Number.isSafeInteger(from) || from < 0) {
    throw new LongshoreError("BadRequest", `from: a byte of the snapshot, not ${from}`);
  }
  if (!Number.isSafeInteger(max) || max < 1 || max > extentsPerPageMax) {
    throw new LongshoreError("BadRequest", `max: 1 to ${extentsPerPageMax} extents, not ${max}`);
  }
  return { from, max };
}

/** What either list covers, whatever it says of it, as one list; both are ascending and do not overlap in themselves. */
export function joined(one: Iterable<ChangedExtent>, other: Iterable<ChangedExtent>): RunList {
  const runs = new RunList();
  for (const { offset, length } of merged(one, other)) {
    const last = runs.length - 1;
    const end = offset + length;
    // The end of none is NaN, which nothing is at or below.
    if (offset <= runs.endOf(last)) runs.extendLast(Math.max(end, runs.endOf(last)));
    else runs.push(offset, end, false);
  }
  return runs;
}

/** By where they begin. */
function* merged(one: Iterable<Extent>, other: Iterable<Extent>): Generator<Extent> {
  const [left, right] = [Iterator.from(one), Iterator.from(other)];
  let [a, b] = [left.next(), right.next()];
  while (a.done !== true || b.done !== true) {
    if (b.done === true || (a.done !== true && a.value.offset <= b.value.offset)) {
      yield a.value as Extent;
      a = left.next();
    } else {
      yield b.value;
      b = right.next();
    }
  }
}

/** The extents from a byte on, as many as are asked for; `next` is where the first that is left out begins. */
export function pageOf(runs: RunList, { from, max }: Page): Pick<ExtentPage, "extents" | "next"> {
  const first = firstEndingAfter(runs, from);
  const end = Math.min(runs.length, first + max);
  const extents: ExtentPage["extents"] = [];
  for (let nth = first; nth < end; nth++) {
    const offset = Math.max(from, runs.startOf(nth));
    extents.push({ offset, length: runs.endOf(nth) - offset });
  }
  return { extents, next: end < runs.length ? runs.startOf(end) : null };
}

/** The index of the first run that ends after a byte; the number of runs when none does. */
function firstEndingAfter(runs: RunList, byte: number): number {
  let [low, high] = [0, runs.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (runs.endOf(middle) > byte) high = middle;
    else low = middle + 1;
  }
  return low;
}
