// The source's side of streaming: has units sent over lanes, and has them stored.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { dataExtentsOf, type UnitList } from "../domain/unit-list.ts";
import type { Verification } from "../domain/verification.ts";
import type { PointReader } from "../storage/backend.ts";
import type { Lane, LaneDialer } from "../transfer/lane.ts";
import type { PeerApi, PeerTarget, StoreRequest } from "../wire/peer.ts";
import type { Transport } from "../wire/schemas.ts";

const batchBytesMax = 64 << 20;
const batchUnitsMax = 512;
const laneBytesMin = 8 << 20;
/** A unit that arrives damaged this often points at something that sending again will not mend. */
const unitTriesMax = 5;

export interface Progress {
  /** Called as units become durable at the target. */
  stored(units: number, bytes: number, verified: Verification): void;
  sent(bytes: number): void;
}

export interface SendOptions {
  /** The agent that stores the units. */
  readonly api: PeerApi;
  readonly transport: Transport;
  readonly dialer: LaneDialer;
  readonly verification: Verification;
  readonly target: PeerTarget;
  readonly peerClusterUid: string;
  readonly reader: PointReader;
  readonly units: UnitList;
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
  const count = lanesFor(options);
  const queue = new UnitQueue(options.units, options.missing, options.windowBytes / (2 * count));
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const lanes = Array.from({ length: count }, (_, lane) => runLane({ ...options, signal }, queue, lane));
  try {
    await Promise.all(lanes);
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(lanes);
    throw error;
  }
}

/** A lane is a connection and a thread at either side: few bytes do not pay for a second one. */
function lanesFor({ units, missing, lanes }: SendOptions): number {
  const bytes = missing.reduce((sum, index) => sum + units.dataBytesOf(index), 0);
  return Math.max(1, Math.min(lanes, Math.ceil(bytes / laneBytesMin)));
}

async function runLane(options: SendOptions, queue: UnitQueue, number: number): Promise<void> {
  if (queue.isEmpty()) return;
  const on = new OpenLane(await openLane(options, number), number, options.progress);
  try {
    await drain(options, queue, on);
    await on.lane.close();
  } catch (error) {
    // Nothing of this lane reads from the point any more when this is over: the caller closes it.
    await on.lane.destroy(asError(error));
    throw await whyTorn(options, on, error);
  } finally {
    on.tellSent();
  }
}

async function openLane(options: SendOptions, lane: number): Promise<Lane> {
  const { api, target, transport, reader, peerClusterUid, pace, signal } = options;
  const { ticket, laneAddress } = await api.laneTicket(target, { lane, transport });
  return options.dialer.open(
    {
      ...{ address: laneAddress, ticket, peerClusterUid, source: reader, pace: { take: pace } },
      hasDigests: options.verification !== "none",
    },
    signal,
  );
}

class OpenLane {
  readonly lane: Lane;
  readonly number: number;
  /** The unit that was leaving when the lane tore. */
  tornAt: number | undefined;
  private readonly progress: Progress;
  private told = 0;

  constructor(lane: Lane, number: number, progress: Progress) {
    this.lane = lane;
    this.number = number;
    this.progress = progress;
  }

  /** A lane counts bytes when they leave, so what is told is always the difference to last time. */
  tellSent(): void {
    const { bytesSent } = this.lane;
    this.progress.sent(bytesSent - this.told);
    this.told = bytesSent;
  }
}

const networkCodes: readonly (string | undefined)[] = ["StreamTorn", "Unreachable", "Timeout"];

/** Why a lane tore is known to who tore it. If that was the target, to ask it for the unit in question tells: a full disk. */
async function whyTorn({ api, target, verification, signal }: SendOptions, on: OpenLane, torn: unknown) {
  if (codeOf(torn) !== "StreamTorn" || on.tornAt === undefined || signal.aborted) return torn;
  try {
    await api.store(target, { lane: on.number, verification, units: [{ index: on.tornAt }] });
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
    const sent = await Promise.race([sendBatch(options, on, batch), failureOf(storing)]);
    await storing;
    storing = storeBatch(options, queue, on.number, sent);
    // Its failure is thrown where it is awaited; until then it must not count as unhandled.
    storing.catch(() => undefined);
  }
}

function failureOf(work: Promise<void>): Promise<never> {
  return new Promise((_, reject) => {
    work.catch(reject);
  });
}

/** Units without data have nothing to send; their digest is that of nothing. */
async function sendBatch(
  { units }: SendOptions,
  on: OpenLane,
  batch: readonly number[],
): Promise<StoreRequest["units"]> {
  const sending = batch.map(async (index) => {
    const extents = dataExtentsOf(units.at(index) ?? []);
    try {
      const digest = extents.length === 0 ? digestOfNothing : await on.lane.send({ index, extents });
      return { index, ...(digest !== undefined && { digest }) };
    } catch (error) {
      on.tornAt ??= index;
      throw error;
    } finally {
      on.tellSent();
    }
  });
  return Promise.all(sending);
}

const digestOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async function storeBatch(
  { api, target, units, verification, progress }: SendOptions,
  queue: UnitQueue,
  lane: number,
  sent: StoreRequest["units"],
): Promise<void> {
  const result = await api.store(target, { lane, verification, units: sent });
  const bytes = result.stored.reduce((sum, index) => sum + units.dataBytesOf(index), 0);
  progress.stored(result.stored.length, bytes, result.verified);
  queue.again(result.damaged);
}

/** Units to be sent, handed out in batches; those that arrived damaged come back. */
class UnitQueue {
  private readonly units: UnitList;
  private readonly batchBytes: number;
  private readonly waiting: number[];
  private readonly tries = new Map<number, number>();

  constructor(units: UnitList, missing: readonly number[], windowBytes: number) {
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
      bytes += this.units.dataBytesOf(index);
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
