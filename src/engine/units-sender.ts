// The source's side of streaming: reads units off a sealed point, sends them over lanes, and has them stored.
// What it remembers is only progress; what is stored is known to the target alone.
import { createHash } from "node:crypto";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { type Unit, unitDataBytes } from "../domain/plan.ts";
import type { PointReader } from "../storage/backend.ts";
import type { Lane, LaneDialer } from "../transfer/lane.ts";
import type { PeerApi, PeerTarget } from "../wire/peer.ts";

const frameBytes = 1 << 20;
const batchBytesMax = 16 << 20;
const batchUnitsMax = 512;
/** A unit that arrives damaged this often points at something that sending again will not mend. */
const unitTriesMax = 5;

export interface Progress {
  /** Called as units become durable at the target. */
  stored(units: number, bytes: number, verified: "media" | "memory"): void;
  sent(bytes: number): void;
}

export interface SendOptions {
  /** The agent that stores the units. */
  readonly api: PeerApi;
  readonly dialer: LaneDialer;
  readonly target: PeerTarget;
  readonly peerClusterUid: string;
  readonly reader: PointReader;
  readonly units: readonly Unit[];
  /** Indexes that are not stored yet, ascending. */
  readonly missing: readonly number[];
  readonly lanes: number;
  readonly windowBytes: number;
  readonly progress: Progress;
  /** Waits until so many bytes may be sent: the location's bandwidth, shared by all its jobs. */
  readonly pace: (bytes: number, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Sends every missing unit. Resolves when all are stored and verified; throws the first error of any lane. */
export async function sendUnits(options: SendOptions): Promise<void> {
  const queue = new UnitQueue(options.units, options.missing, options.windowBytes / (2 * options.lanes));
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const lanes = Array.from({ length: options.lanes }, (_, lane) => runLane({ ...options, signal }, queue, lane));
  try {
    await Promise.all(lanes);
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(lanes);
    throw error;
  }
}

async function runLane(options: SendOptions, queue: UnitQueue, number: number): Promise<void> {
  if (queue.isEmpty()) return;
  const { ticket, laneAddress } = await options.api.laneTicket(options.target, number);
  const lane = await options.dialer.open(
    { address: laneAddress, ticket, peerClusterUid: options.peerClusterUid },
    options.signal,
  );
  const breakLane = () => lane.destroy(asError(options.signal.reason));
  options.signal.addEventListener("abort", breakLane, { once: true });
  // A lane gathers small frames and counts them when they leave, so what is told is always the difference to last time.
  let told = 0;
  const tellSent = () => {
    options.progress.sent(lane.bytesSent - told);
    told = lane.bytesSent;
  };
  const on: OpenLane = { lane, number, tellSent, tornAt: undefined };
  try {
    await drain(options, queue, on);
    await lane.close();
  } catch (error) {
    lane.destroy(asError(error));
    throw await whyTorn(options, on, error);
  } finally {
    tellSent();
    options.signal.removeEventListener("abort", breakLane);
  }
}

interface OpenLane {
  readonly lane: Lane;
  readonly number: number;
  readonly tellSent: () => void;
  /** The unit whose frames were leaving when the lane tore. */
  tornAt: number | undefined;
}

const networkCodes: readonly (string | undefined)[] = ["StreamTorn", "Unreachable", "Timeout"];
const noDigest = "0".repeat(64);

/** Why a lane tore is known to who tore it. If that was the target, to ask it for the unit in question tells: a full disk. */
async function whyTorn({ api, target, signal }: SendOptions, on: OpenLane, torn: unknown): Promise<unknown> {
  if (codeOf(torn) !== "StreamTorn" || on.tornAt === undefined || signal.aborted) return torn;
  try {
    await api.store(target, { lane: on.number, units: [{ index: on.tornAt, digest: noDigest }] });
    return torn;
  } catch (reason) {
    return networkCodes.includes(codeOf(reason)) ? torn : reason;
  }
}

/** Keeps one batch on its way while the one before it is being stored. */
async function drain(options: SendOptions, queue: UnitQueue, on: OpenLane): Promise<void> {
  let storing: Promise<void> = Promise.resolve();
  for (;;) {
    const batch = queue.take();
    if (batch.length === 0) {
      await storing;
      if (queue.isEmpty()) return;
      continue;
    }
    const digests = await Promise.race([sendBatch(options, on, batch), failureOf(storing)]);
    await storing;
    storing = storeBatch(options, queue, on.number, digests);
    // Its failure is thrown where it is awaited; until then it must not count as unhandled.
    storing.catch(() => undefined);
  }
}

function failureOf(work: Promise<void>): Promise<never> {
  return new Promise((_, reject) => {
    work.catch(reject);
  });
}

async function sendBatch(options: SendOptions, on: OpenLane, batch: readonly number[]) {
  const digests: { index: number; digest: string }[] = [];
  for (const index of batch) {
    try {
      digests.push({ index, digest: await sendUnit(options, on.lane, index) });
    } catch (error) {
      on.tornAt = index;
      throw error;
    }
    on.tellSent();
  }
  return digests;
}

async function sendUnit({ reader, units, pace, signal }: SendOptions, lane: Lane, index: number): Promise<string> {
  const hash = createHash("sha256");
  for (const [offset, length, data] of units[index] ?? []) {
    if (data === 0) continue;
    for (let at = 0; at < length; at += frameBytes) {
      signal.throwIfAborted();
      // A fresh buffer for each frame: the lane may keep the last one until it has left.
      const payload = Buffer.allocUnsafe(Math.min(frameBytes, length - at));
      await reader.read(offset + at, payload);
      hash.update(payload);
      await pace(payload.length, signal);
      await lane.send({ unit: index, offset: offset + at, length: payload.length }, payload);
    }
  }
  return hash.digest("hex");
}

async function storeBatch(
  { api, target, units, progress }: SendOptions,
  queue: UnitQueue,
  lane: number,
  digests: readonly { index: number; digest: string }[],
): Promise<void> {
  const result = await api.store(target, { lane, units: [...digests] });
  const bytes = result.stored.reduce((sum, index) => sum + unitDataBytes(units[index] ?? []), 0);
  progress.stored(result.stored.length, bytes, result.verified);
  queue.again(result.damaged);
}

/** Units to be sent, handed out in batches; those that arrived damaged come back. */
class UnitQueue {
  private readonly units: readonly Unit[];
  private readonly batchBytes: number;
  private readonly waiting: number[];
  private readonly tries = new Map<number, number>();

  constructor(units: readonly Unit[], missing: readonly number[], windowBytes: number) {
    this.units = units;
    this.batchBytes = Math.min(batchBytesMax, windowBytes);
    this.waiting = [...missing].reverse();
  }

  isEmpty(): boolean {
    return this.waiting.length === 0;
  }

  take(): number[] {
    const batch: number[] = [];
    let bytes = 0;
    while (batch.length < batchUnitsMax && bytes < this.batchBytes) {
      const index = this.waiting.pop();
      if (index === undefined) break;
      batch.push(index);
      bytes += unitDataBytes(this.units[index] ?? []);
    }
    return batch;
  }

  again(indexes: readonly number[]): void {
    for (const index of indexes) {
      const tries = (this.tries.get(index) ?? 0) + 1;
      if (tries >= unitTriesMax) {
        throw new LongshoreError("ChecksumMismatch", `unit ${index} arrived damaged ${tries} times`);
      }
      this.tries.set(index, tries);
      this.waiting.push(index);
    }
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
