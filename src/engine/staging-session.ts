// One open staging image at the target, while its term lasts: takes units off the lanes, and stores them durably, verified.
// Nothing here decides; what it stores counts only once the caller has recorded it in the journal.
import { LongshoreError } from "../domain/errors.ts";
import { dataExtentsOf, type Unit, type UnitList, unitDataBytes } from "../domain/unit-list.ts";
import type { Verification } from "../domain/verification.ts";
import type { Digest, Extent, Staging } from "../storage/backend.ts";
import type { LaneExtent, LaneSink } from "../transfer/lane.ts";

export interface StoredUnit {
  readonly unit: number;
  /** Empty for one that was not read back. */
  readonly digest: string;
  readonly verified: Verification;
}

/** What a unit must turn out to be; no digest where none is asked for. */
export interface ExpectedUnit {
  readonly index: number;
  readonly digest?: string;
}

export class StagingSession {
  readonly units: UnitList;
  readonly fd: number;
  private readonly staging: Staging;
  private readonly intakes = new Map<number, LaneIntake>();
  /** Recorded as stored and verified: nothing may be written there any more. */
  private readonly kept = new Set<number>();
  private isOpen = true;

  constructor(staging: Staging, units: UnitList) {
    this.staging = staging;
    this.units = units;
    this.fd = staging.fd;
  }

  /** The sink for a fresh lane of this number; what an earlier lane brought in part does not count. */
  openLane(lane: number): LaneSink {
    this.intakes.get(lane)?.fail(new LongshoreError("StreamTorn", `lane ${lane} was replaced by a newer one`));
    const intake = new LaneIntake(this, this.staging);
    this.intakes.set(lane, intake);
    return intake;
  }

  /** These units are recorded as stored; they are refused from now on. */
  keep(units: Iterable<{ readonly unit: number }>): void {
    for (const { unit } of units) this.kept.add(unit);
  }

  isKept(unit: number): boolean {
    return this.kept.has(unit);
  }

  /** Resolves when every byte of these units has come in on the lane. Throws `StreamTorn`, or why the lane failed. */
  async received(lane: number, units: readonly number[]): Promise<void> {
    const intake = this.intakes.get(lane);
    if (intake === undefined) throw new LongshoreError("StreamTorn", `lane ${lane} is not open`);
    for (const unit of units) await intake.complete(unit);
  }

  /** Punches, syncs and reads back, as far as that is asked for; answers which units hold what their digest says. */
  async settle(
    expected: readonly ExpectedUnit[],
    verification: Verification,
  ): Promise<{ good: StoredUnit[]; damaged: number[] }> {
    this.checkOpen();
    for (const { index } of expected) await this.punch(this.unit(index));
    await this.staging.sync();
    if (verification === "none") {
      return { good: expected.map(({ index }) => ({ unit: index, digest: "", verified: "none" })), damaged: [] };
    }
    const held = await this.heldBy(expected, verification);
    const isGood = ({ digest }: StoredUnit, at: number) => digest === expected[at]?.digest;
    const damaged = held.filter((unit, at) => !isGood(unit, at)).map(({ unit }) => unit);
    return { good: held.filter(isGood), damaged };
  }

  /** Side by side, for digests have threads of their own; rejects when none is under way any more. */
  private async heldBy(units: readonly ExpectedUnit[], wanted: "media" | "memory"): Promise<StoredUnit[]> {
    const held = units.map(async ({ index }) => ({ unit: index, ...(await this.digestOf(index, wanted)) }));
    await Promise.allSettled(held);
    return Promise.all(held);
  }

  /** The digest of what the image holds now in a unit's data extents. */
  digestOf(index: number, wanted: "media" | "memory"): Promise<Digest> {
    const extents = dataExtentsOf(this.unit(index)).map(([offset, length]) => ({ offset, length }));
    return this.staging.digest(extents, wanted);
  }

  unit(index: number): Unit {
    const unit = this.units.at(index);
    if (unit === undefined)
      throw new LongshoreError("BadRequest", `the plan has ${this.units.length} units, not ${index}`);
    return unit;
  }

  /** After this nothing is written any more. The lanes must be closed before. */
  async close(): Promise<void> {
    if (!this.isOpen) return;
    this.isOpen = false;
    for (const intake of this.intakes.values()) intake.fail(new LongshoreError("StreamTorn", "the term ended"));
    await this.staging.close();
  }

  checkOpen(): void {
    if (!this.isOpen) throw new LongshoreError("TermLost", "the staging image was closed under the call");
  }

  /** Punches the holes of a unit that was stored before this session; {@link sync} makes it durable. Sealed, it has them. */
  async punchAgain(index: number): Promise<void> {
    if (!this.staging.isSealed) await this.punch(this.unit(index));
  }

  sync(): Promise<void> {
    return this.staging.sync();
  }

  private async punch(unit: Unit): Promise<void> {
    for (const [offset, length, data] of unit) if (data === 0) await this.staging.punch({ offset, length });
  }
}

/** What one lane brought, unit by unit, so that a half-received unit is never taken for a whole one. */
class LaneIntake implements LaneSink {
  readonly fd: number;
  private readonly session: StagingSession;
  private readonly staging: Staging;
  private readonly underWay = new Set<number>();
  private readonly whole = new Set<number>();
  private failure: Error | undefined;
  private wake = Promise.withResolvers<void>();

  constructor(session: StagingSession, staging: Staging) {
    this.session = session;
    this.staging = staging;
    this.fd = session.fd;
  }

  begin(index: number): LaneExtent[] {
    this.checkUsable();
    if (this.session.isKept(index)) throw new LongshoreError("BadRequest", `unit ${index} is stored already`);
    if (this.underWay.has(index)) throw new LongshoreError("BadRequest", `unit ${index} is under way already`);
    const extents = dataExtentsOf(this.session.unit(index));
    if (extents.length === 0) throw new LongshoreError("BadRequest", `unit ${index} has no data to be sent`);
    this.underWay.add(index);
    return extents;
  }

  async write(unit: number, offset: number, data: Uint8Array): Promise<void> {
    this.checkUsable();
    if (!this.underWay.has(unit)) throw new LongshoreError("BadRequest", `unit ${unit} has not begun on this lane`);
    try {
      await this.staging.write(offset, data);
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  arrived(unit: number): void {
    this.whole.add(unit);
    this.stir();
    // While the next one comes in; the sync that makes it durable then finds less to do.
    this.staging.writeOut(spanOf(this.session.unit(unit))).catch((error: Error) => this.fail(error));
  }

  /** Told by the lane server about this very lane, whichever has its number by now. */
  broken(error: Error): void {
    this.fail(error);
  }

  fail(error: Error): void {
    this.failure ??= error;
    this.stir();
  }

  /** Resolves when the unit is whole; it may be sent again afterwards. A lane that is idle for too long breaks by itself. */
  async complete(index: number): Promise<void> {
    if (unitDataBytes(this.session.unit(index)) === 0) return;
    while (!this.whole.has(index)) {
      if (this.failure !== undefined) throw this.failure;
      await this.wake.promise;
    }
    this.whole.delete(index);
    this.underWay.delete(index);
  }

  private checkUsable(): void {
    this.session.checkOpen();
    if (this.failure !== undefined) throw this.failure;
  }

  private stir(): void {
    this.wake.resolve();
    this.wake = Promise.withResolvers<void>();
  }
}

/** From its first byte to its last; units do not overlap. */
function spanOf(unit: Unit): Extent {
  const [first = [0, 0], last = first] = [unit[0], unit.at(-1)];
  return { offset: first[0], length: last[0] + last[1] - first[0] };
}
