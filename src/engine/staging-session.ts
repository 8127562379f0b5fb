// One open staging image at the target, while its term lasts: takes units off the lanes, and stores them durably, verified.
// Nothing here decides; what it stores counts only once the caller has recorded it in the journal.
import { createHash } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { type Unit, unitDataBytes } from "../domain/plan.ts";
import type { Staging } from "../storage/backend.ts";
import type { Frame, LaneSink } from "../transfer/lane.ts";

const readBackBytes = 1 << 20;
/** A lane that brings nothing for this long, while a unit of it is waited for, is given up. */
const laneIdleMs = 20_000;

export type Verified = "media" | "memory";

export interface StoredUnit {
  readonly unit: number;
  readonly digest: string;
  readonly verified: Verified;
}

export class StagingSession {
  readonly units: readonly Unit[];
  private readonly staging: Staging;
  private readonly clock: Clock;
  private readonly intakes = new Map<number, LaneIntake>();
  /** Recorded as stored and verified: nothing may be written there any more. */
  private readonly kept = new Set<number>();
  private isOpen = true;

  constructor(staging: Staging, units: readonly Unit[], clock: Clock) {
    this.staging = staging;
    this.units = units;
    this.clock = clock;
  }

  /** The sink for a fresh lane of this number; what an earlier lane brought in part does not count. */
  openLane(lane: number): LaneSink {
    this.intakes.get(lane)?.fail(new LongshoreError("StreamTorn", `lane ${lane} was replaced by a newer one`));
    const intake = new LaneIntake(this, this.staging, this.clock);
    this.intakes.set(lane, intake);
    return intake;
  }

  /** These units are recorded as stored; frames of them are refused from now on. */
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

  /** Punches, syncs and reads back; answers which units hold what their digest says. */
  async settle(
    expected: readonly { index: number; digest: string }[],
  ): Promise<{ good: StoredUnit[]; damaged: number[] }> {
    this.checkOpen();
    for (const { index } of expected) await this.punch(this.unit(index));
    await this.staging.sync();
    const good: StoredUnit[] = [];
    const damaged: number[] = [];
    for (const { index, digest } of expected) {
      const found = await this.digestOf(index);
      if (found.digest === digest) good.push({ unit: index, digest, verified: found.verified });
      else damaged.push(index);
    }
    return { good, damaged };
  }

  /** The digest of what the image holds now in a unit's data extents. */
  async digestOf(index: number): Promise<{ digest: string; verified: Verified }> {
    const hash = createHash("sha256");
    let verified: Verified = "media";
    for (const [offset, length, data] of this.unit(index)) {
      if (data === 0) continue;
      for (let at = 0; at < length; at += readBackBytes) {
        const piece = new Uint8Array(Math.min(readBackBytes, length - at));
        if ((await this.staging.readBack(offset + at, piece)) === "memory") verified = "memory";
        hash.update(piece);
      }
    }
    return { digest: hash.digest("hex"), verified };
  }

  unit(index: number): Unit {
    const unit = this.units[index];
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

  private async punch(unit: Unit): Promise<void> {
    for (const [offset, length, data] of unit) if (data === 0) await this.staging.punch({ offset, length });
  }
}

/** Counts what one lane brought, unit by unit, so that a half-received unit is never taken for a whole one. */
class LaneIntake implements LaneSink {
  private readonly session: StagingSession;
  private readonly staging: Staging;
  private readonly clock: Clock;
  private readonly announced = new Map<number, number>();
  private readonly written = new Map<number, number>();
  private failure: Error | undefined;
  private wake = Promise.withResolvers<void>();

  constructor(session: StagingSession, staging: Staging, clock: Clock) {
    this.session = session;
    this.staging = staging;
    this.clock = clock;
  }

  accept(frame: Frame): void {
    this.checkUsable();
    if (this.session.isKept(frame.unit)) throw new LongshoreError("BadRequest", `unit ${frame.unit} is stored already`);
    const unit = this.session.unit(frame.unit);
    const isPlanned = unit.some(
      ([offset, length, data]) =>
        data === 1 && frame.offset >= offset && frame.offset + frame.length <= offset + length,
    );
    const announced = (this.announced.get(frame.unit) ?? 0) + frame.length;
    if (!isPlanned || announced > unitDataBytes(unit)) {
      throw new LongshoreError(
        "BadRequest",
        `frame ${frame.offset}+${frame.length} is not in unit ${frame.unit}'s plan`,
      );
    }
    this.announced.set(frame.unit, announced);
  }

  async write(unit: number, offset: number, data: Uint8Array): Promise<void> {
    this.checkUsable();
    try {
      await this.staging.write(offset, data);
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
    this.written.set(unit, (this.written.get(unit) ?? 0) + data.length);
    this.stir();
  }

  /** Told by the lane server about this very lane, whichever has its number by now. */
  broken(error: Error): void {
    this.fail(error);
  }

  fail(error: Error): void {
    this.failure ??= error;
    this.stir();
  }

  /** Resolves when the unit is whole; a unit sent again afterwards is counted from nothing. */
  async complete(unit: number): Promise<void> {
    const expected = unitDataBytes(this.session.unit(unit));
    while ((this.written.get(unit) ?? 0) < expected) {
      if (this.failure !== undefined) throw this.failure;
      await this.next();
    }
    this.announced.delete(unit);
    this.written.delete(unit);
  }

  private checkUsable(): void {
    this.session.checkOpen();
    if (this.failure !== undefined) throw this.failure;
  }

  private async next(): Promise<void> {
    const idle = new AbortController();
    const timeout = this.clock.sleep(laneIdleMs, idle.signal).then(
      () => this.fail(new LongshoreError("StreamTorn", `nothing came for ${laneIdleMs} ms on the lane`)),
      () => undefined,
    );
    await this.wake.promise;
    idle.abort();
    await timeout;
  }

  private stir(): void {
    this.wake.resolve();
    this.wake = Promise.withResolvers<void>();
  }
}
