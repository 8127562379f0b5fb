// What every transport of lanes keeps to, whatever carries the bytes: integrity, tickets, bounded memory, and a sink into which
// nothing is written that it did not answer for, nor anything after its lanes were closed.
import { once } from "node:events";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { crc32 } from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import {
  type Lane,
  type LaneDialer,
  type LaneServer,
  type LaneSink,
  type LaneSource,
  type LaneUnit,
  type Pace,
  unitPayloadBytesMax,
} from "../../src/transfer/lane.ts";
import {
  preambleBytes,
  renderEnd,
  renderPreamble,
  unitHeaderBytes,
  writeUnitHeader,
} from "../../src/transfer/lane-codec.ts";
import { type TemporaryFolder, temporaryFolder } from "../fakes/temporary-folder.ts";
import {
  block,
  bytesOf,
  digestOf,
  FileSink,
  fileSource,
  imageOf,
  MemorySink,
  memorySource,
  payloadOf,
  strayBytes,
  unit,
} from "./lane-ends.ts";

export interface LaneWorld {
  readonly server: LaneServer;
  readonly dialer: LaneDialer;
  /** The cluster that dials, and the one that serves. */
  readonly sourceUid: string;
  readonly targetUid: string;
  /** Whether a peer proves which cluster it is of. */
  readonly hasProof: boolean;
  readonly laneErrors: { readonly owner: string; readonly lane: number; readonly error: Error }[];
  /** A connection of the source on which nothing was sent yet. */
  dialRaw(): Promise<Duplex>;
  stop(): Promise<void>;
}

export interface LaneWorldOptions {
  /** The server's clock. */
  readonly clock: Clock;
  readonly serverLimits: {
    readonly windowBytesMax?: number;
    readonly writesInFlightMax?: number;
    readonly idleMs?: number;
    readonly openingMs?: number;
  };
}

const mebibyte = 1024 * 1024;
const windowBytesMax = mebibyte;
/** The receiver gathers up to this much before a write, on top of its window. */
const gatherBytes = 256 * 1024;
const refused = expect.objectContaining({ code: "TicketRefused" });
const torn = expect.objectContaining({ code: "StreamTorn" });
const neverAborted = () => new AbortController().signal;
/** Lets whatever can happen without time happen. */
const turns = async (count = 20) => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
};

/** Units of any shape that plans have, and of sizes that they do not have; in order, with gaps between them. */
const anyUnits = (blockMax: number) =>
  fc
    .array(
      fc.array(
        fc.tuple(
          fc.nat(3).map((blocks) => blocks * block),
          fc.oneof(
            fc.constant(block),
            fc.integer({ min: 1, max: blockMax }).map((blocks) => blocks * block),
            fc.integer({ min: 1, max: blockMax * block }),
          ),
        ),
        { minLength: 1, maxLength: 12 },
      ),
      { minLength: 1, maxLength: 6 },
    )
    .map((shapes) => {
      let end = 0;
      return shapes.map((shape, index) =>
        unit(
          index,
          ...shape.map(([gap, length]) => {
            const offset = end + gap;
            end = offset + length;
            return [offset, length] as const;
          }),
        ),
      );
    });

/** Resolves when the stream is closed, by an error or not. */
const closed = (stream: Duplex) => new Promise<void>((resolve) => stream.once("close", resolve));

const sizeOf = (units: readonly LaneUnit[]) =>
  Math.max(0, ...units.flatMap(({ extents }) => extents.map(([offset, length]) => offset + length)));
/** A unit of one extent, which is all of its payload. */
const solid = (index: number, length: number, offset = 0) => unit(index, [offset, length]);

interface Dialling {
  readonly source?: LaneSource;
  readonly signal?: AbortSignal;
  readonly hasDigests?: boolean;
  readonly pace?: Pace;
}

/** What the parts of the suite share. */
interface Surroundings {
  world(options?: Partial<LaneWorldOptions>): Promise<LaneWorld>;
  ticketFor(at: LaneWorld, sink: LaneSink, binding?: { owner?: string; lane?: number; peer?: string }): string;
  dial(at: LaneWorld, ticket: string, options?: Dialling): Promise<Lane>;
  openLane(
    at: LaneWorld,
    sink: LaneSink,
    binding?: { owner?: string; lane?: number },
    options?: Dialling,
  ): Promise<Lane>;
  /** A lane opened by hand; what is sent on it is up to the test. */
  openRaw(at: LaneWorld, sink: LaneSink): Promise<Duplex>;
  /** Opens, uses and closes a lane: it works, and time has passed. */
  expectAlive(at: LaneWorld): Promise<void>;
}

/** `openWorld` makes both sides anew for every test. */
export function laneContract(transport: string, openWorld: (options: LaneWorldOptions) => Promise<LaneWorld>): void {
  const worlds: LaneWorld[] = [];
  afterEach(async () => {
    for (const world of worlds.splice(0)) await world.stop();
  });
  const world = async ({ clock, serverLimits }: Partial<LaneWorldOptions> = {}) => {
    // Threads that start all at once take their time on a busy machine.
    const limits = { windowBytesMax, openingMs: 60_000, ...serverLimits };
    const opened = await openWorld({ clock: clock ?? systemClock, serverLimits: limits });
    worlds.push(opened);
    return opened;
  };
  const ticketFor: Surroundings["ticketFor"] = (at, sink, { owner = "volume-1", lane = 0, peer = at.sourceUid } = {}) =>
    at.server.issue({ owner, epoch: 1, lane, peerClusterUid: peer }, sink);
  const dial: Surroundings["dial"] = (at, ticket, options = {}) => {
    const { source = memorySource, signal = neverAborted(), hasDigests = true, pace } = options;
    const { address } = at.server;
    return at.dialer.open({ address, ticket, peerClusterUid: at.targetUid, source, hasDigests, pace }, signal);
  };
  const openLane: Surroundings["openLane"] = (at, sink, binding, options) =>
    dial(at, ticketFor(at, sink, binding), options);
  const openRaw: Surroundings["openRaw"] = async (at, sink) => {
    const stream = await at.dialRaw();
    stream.write(renderPreamble(ticketFor(at, sink)));
    await once(stream, "data");
    return stream;
  };
  const expectAlive: Surroundings["expectAlive"] = async (at) => {
    const sent = solid(1, block, block);
    const sink = new MemorySink([sent]);
    const lane = await openLane(at, sink, { owner: "another" });
    await lane.send(sent);
    await lane.close();
    expect(sink.image.equals(imageOf(sink.image.length, [sent]))).toBe(true);
  };
  const surroundings = { world, ticketFor, dial, openLane, openRaw, expectAlive };

  describe(`a lane over ${transport}`, () => {
    describe("carries units", () => carriesUnits(surroundings));
    describe("from file to file", () => fromFileToFile(surroundings));
    describe("is opened by a ticket", () => isOpenedByTicket(surroundings));
    describe("breaks", () => breaks(surroundings));
    describe("with a slow sink", () => withSlowSink(surroundings));
    describe("closing the lanes of an owner", () => closingLanes(surroundings));
    describe("takes no garbage", () => takesNoGarbage(surroundings));
  });
}

function carriesUnits({ world, openLane }: Surroundings): void {
  test("of every shape byte for byte, whole when close resolves, with their digests, and counts what it sent", async () => {
    const at = await world();
    await fc.assert(
      fc.asyncProperty(anyUnits(100), async (units) => {
        const sink = new MemorySink(units, sizeOf(units));
        const lane = await openLane(at, sink);
        for (const sent of units) expect(await lane.send(sent)).toBe(digestOf(sent));
        await lane.close();
        expect(sink.image.equals(imageOf(sizeOf(units), units))).toBe(true);
        const order = units.map(({ index }) => index);
        expect([sink.begun, sink.arrivals]).toEqual([order, order]);
        const total = units.reduce((sum, sent) => sum + bytesOf(sent), 0);
        expect(lane.bytesSent).toBe(preambleBytes + (units.length + 1) * unitHeaderBytes + total);
      }),
      { numRuns: 20 },
    );
    expect(at.laneErrors).toEqual([]);
  });

  test("of the greatest index, length and offset", async () => {
    const at = await world();
    const sent = solid(2 ** 32 - 1, unitPayloadBytesMax, 2 ** 53 - 1 - unitPayloadBytesMax);
    const sink = new MemorySink([sent], 0);
    const lane = await openLane(at, sink);
    expect(await lane.send(sent)).toBe(digestOf(sent));
    await lane.close();
    expect(sink.arrivals).toEqual([sent.index]);
    expect(sink.bytesWritten).toBe(unitPayloadBytesMax);
  });

  test("that are sent all at once, in order", async () => {
    const at = await world();
    const units = Array.from({ length: 100 }, (_, index) => solid(index, block, index * 2 * block));
    const sink = new MemorySink(units, 200 * block);
    const lane = await openLane(at, sink);
    expect(await Promise.all(units.map((sent) => lane.send(sent)))).toEqual(units.map(digestOf));
    await lane.close();
    expect(sink.begun).toEqual(units.map(({ index }) => index));
    expect(sink.image.equals(imageOf(200 * block, units))).toBe(true);
  });

  test("without their digests when nobody wants them", async () => {
    const at = await world();
    const sent = solid(0, 3 * block);
    const sink = new MemorySink([sent]);
    const lane = await openLane(at, sink, {}, { hasDigests: false });
    expect(await lane.send(sent)).toBeUndefined();
    await lane.close();
    expect(sink.image.equals(imageOf(sink.image.length, [sent]))).toBe(true);
  });

  test("once more, when the sink takes them again", async () => {
    const at = await world();
    const sent = solid(0, 3 * block);
    const sink = new MemorySink([sent]);
    const lane = await openLane(at, sink);
    await lane.send(sent);
    await sink.until(() => sink.arrivals.length === 1);
    await lane.send(sent);
    await lane.close();
    expect(sink.arrivals).toEqual([0, 0]);
  });

  test("that arrive without more being sent after them", async () => {
    const at = await world();
    const sent = solid(0, block);
    const sink = new MemorySink([sent]);
    const lane = await openLane(at, sink);
    await lane.send(sent);
    await sink.until(() => sink.arrivals.length === 1);
    await lane.close();
  });

  test("on many lanes of many owners at once, each to its own sink", async () => {
    const at = await world();
    await Promise.all(
      Array.from({ length: 8 }, async (_, lane) => {
        const sent = solid(lane, block * 512);
        const sink = new MemorySink([sent], block * 512);
        const open = await openLane(at, sink, { owner: `volume-${lane % 3}`, lane });
        await open.send(sent);
        await open.close();
        expect(sink.image.equals(imageOf(block * 512, [sent]))).toBe(true);
      }),
    );
  });

  test("at the pace it is given, which it asks for all of it in small pieces", async () => {
    const at = await world();
    const units = [solid(0, 3_000_000), solid(1, 1, 4_000_000)];
    const sink = new MemorySink(units, 4_000_001);
    const taken: number[] = [];
    const pace = { take: async (bytes: number) => void taken.push(bytes) };
    const lane = await openLane(at, sink, {}, { pace });
    for (const sent of units) await lane.send(sent);
    await lane.close();
    expect(taken.reduce((sum, bytes) => sum + bytes, 0)).toBe(2 * unitHeaderBytes + 3_000_001);
    expect(taken[0]).toBeLessThanOrEqual(64 * 1024);
    expect(Math.max(...taken)).toBeLessThanOrEqual(mebibyte);
    expect(sink.image.equals(imageOf(4_000_001, units))).toBe(true);
  });

  test("no further than its pace lets it", async () => {
    const at = await world();
    const sent = solid(0, unitPayloadBytesMax);
    const sink = new MemorySink([sent], unitPayloadBytesMax);
    let taken = 0;
    const stuck = Promise.withResolvers<void>();
    const pace = {
      take: (bytes: number, signal: AbortSignal) => {
        if (taken < mebibyte) {
          taken += bytes;
          return Promise.resolve();
        }
        stuck.resolve();
        return new Promise<void>((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        });
      },
    };
    const lane = await openLane(at, sink, {}, { pace });
    const outcome = lane.send(sent).catch((error) => error);
    await stuck.promise;
    // What was let through goes out, although the chunk it is in is not full.
    await sink.until(() => sink.writes.reduce((sum, { length }) => sum + length, 0) > taken - 2 * gatherBytes);
    expect(lane.bytesSent).toBeLessThanOrEqual(preambleBytes + taken);
    await lane.destroy(new Error("seen enough"));
    expect(await outcome).toEqual(torn);
  });
}

function fromFileToFile({ world, openLane, expectAlive }: Surroundings): void {
  let folder: TemporaryFolder;
  beforeAll(async () => {
    folder = await temporaryFolder("lane");
  });
  afterAll(async () => {
    await folder.remove();
  });
  const ends: { close(): void }[] = [];
  afterEach(() => {
    for (const end of ends.splice(0)) end.close();
  });
  let files = 0;
  /** A file of zeros that nobody has used. */
  const freshFile = (sizeBytes: number) => {
    const path = join(folder.path, `sink-${files++}`);
    writeFileSync(path, "");
    truncateSync(path, sizeBytes);
    return path;
  };
  const sinkFor = (units: readonly LaneUnit[], sizeBytes = sizeOf(units)) => {
    const sink = new FileSink(units, { path: freshFile(sizeBytes) });
    ends.push(sink);
    return sink;
  };
  const sourceOf = (sizeBytes: number) => {
    const source = fileSource(folder.path, sizeBytes);
    ends.push(source);
    return source;
  };

  test.each([true, false])(
    "of every shape byte for byte, and nothing between (with digests: %p)",
    async (hasDigests) => {
      const at = await world();
      const source = sourceOf(64 * mebibyte);
      await fc.assert(
        fc.asyncProperty(anyUnits(100), async (units) => {
          const sink = sinkFor(units);
          const lane = await openLane(at, sink, {}, { source, hasDigests });
          const digests = await Promise.all(units.map((sent) => lane.send(sent)));
          await lane.close();
          expect(digests).toEqual(units.map((sent) => (hasDigests ? digestOf(sent) : undefined)));
          expect(sink.image.equals(imageOf(sizeOf(units), units))).toBe(true);
          expect(sink.arrivals).toEqual(units.map(({ index }) => index));
          const total = units.reduce((sum, sent) => sum + bytesOf(sent), 0);
          expect(lane.bytesSent).toBe(preambleBytes + (units.length + 1) * unitHeaderBytes + total);
        }),
        { numRuns: 20 },
      );
      expect(at.laneErrors).toEqual([]);
    },
  );

  test("the greatest units, and those of very many extents", async () => {
    const at = await world();
    const scattered = Array.from({ length: 2048 }, (_, index) => [9 * mebibyte + index * 2 * block, block] as const);
    const units = [solid(0, unitPayloadBytesMax), unit(1, ...scattered), solid(2, unitPayloadBytesMax, 32 * mebibyte)];
    const sink = sinkFor(units);
    const lane = await openLane(at, sink, {}, { source: sourceOf(64 * mebibyte) });
    expect(await Promise.all(units.map((sent) => lane.send(sent)))).toEqual(units.map(digestOf));
    await lane.close();
    expect(sink.image.equals(imageOf(sizeOf(units), units))).toBe(true);
  });

  test("from memory to a file, and from a file to memory", async () => {
    const at = await world();
    const sent = unit(0, [block, 300_000], [400_000, 5], [500_000, mebibyte]);
    const [file, memory] = [sinkFor([sent]), new MemorySink([sent], sizeOf([sent]))];
    for (const [sink, source] of [
      [file, memorySource],
      [memory, sourceOf(2 * mebibyte)],
    ] as const) {
      const lane = await openLane(at, sink, {}, { source });
      expect(await lane.send(sent)).toBe(digestOf(sent));
      await lane.close();
      expect(sink.image.equals(imageOf(sizeOf([sent]), [sent]))).toBe(true);
    }
  });

  test("at the pace it is given", async () => {
    const at = await world();
    const sent = [unit(0, [block, 3_000_000], [4_000_000, 5]), solid(1, block, 5_000_000)];
    const sink = sinkFor(sent);
    let taken = 0;
    const take = async (bytes: number) => {
      await turns(1);
      taken += bytes;
    };
    const lane = await openLane(at, sink, {}, { source: sourceOf(8 * mebibyte), pace: { take } });
    await Promise.all(sent.map((unit) => lane.send(unit)));
    await lane.close();
    expect(taken).toBe(2 * unitHeaderBytes + 3_000_005 + block);
    expect(sink.image.equals(imageOf(sizeOf(sent), sent))).toBe(true);
  });

  test.each([
    ["one extent", solid(0, 2 * mebibyte)],
    ["small extents", unit(0, [0, block], [mebibyte + 1, block])],
  ])("breaks when the source has less than a unit of %s, and says so", async (_what, sent) => {
    const at = await world();
    const sink = sinkFor([sent]);
    const lane = await openLane(at, sink, {}, { source: sourceOf(mebibyte) });
    await expect(lane.send(sent)).rejects.toMatchObject({ message: expect.stringMatching(/the file ends at \d+/) });
    await expect(lane.close()).rejects.toEqual(torn);
    expect(await sink.brokenBy).toEqual(torn);
    expect(sink.arrivals).toEqual([]);
    await expectAlive(at);
  });

  test("breaks when the source's file cannot be read, and says why", async () => {
    const at = await world();
    const sent = solid(0, 2 * mebibyte);
    const writeOnly = { ...memorySource, fd: 1_000_000 };
    const lane = await openLane(at, sinkFor([sent]), {}, { source: writeOnly });
    await expect(lane.send(sent)).rejects.toMatchObject({
      message: "cannot read the source",
      cause: { code: "EBADF" },
    });
    await expectAlive(at);
  });

  test.each([
    ["one extent", solid(0, 2 * mebibyte)],
    ["small extents", unit(0, [0, block], [mebibyte + 1, block])],
  ])("breaks when a unit of %s cannot be written, and says why on the side of the target", async (_what, sent) => {
    const at = await world();
    const path = join(folder.path, "read-only");
    writeFileSync(path, "");
    const sink = new FileSink([sent], { path, flags: "r" });
    ends.push(sink);
    const lane = await openLane(at, sink, {}, { source: sourceOf(2 * mebibyte) });
    await lane.send(sent).catch(() => {});
    await expect(lane.close()).rejects.toEqual(torn);
    expect(await sink.brokenBy).toMatchObject({ cause: { code: "EBADF" } });
    expect(sink.arrivals).toEqual([]);
    await expectAlive(at);
  });

  test.each([
    ["one extent", solid(0, 2 * mebibyte)],
    ["small extents", unit(0, [0, block], [mebibyte + 1, block])],
  ])("breaks when there is no room for a unit of %s, and says so on the side of the target", async (_what, sent) => {
    const at = await world();
    const sink = new FileSink([sent], { path: "/dev/full" });
    ends.push(sink);
    const lane = await openLane(at, sink, {}, { source: sourceOf(2 * mebibyte) });
    await lane.send(sent).catch(() => {});
    await expect(lane.close()).rejects.toEqual(torn);
    expect(await sink.brokenBy).toMatchObject({ code: "DiskFull", cause: { code: "ENOSPC" } });
    expect(sink.arrivals).toEqual([]);
    await expectAlive(at);
  });

  test("neither reads nor writes a file once destroying and closing have resolved, whatever has its number then", async () => {
    const at = await world();
    for (let round = 0; round < 8; round++) {
      const units = Array.from({ length: 4 }, (_, index) =>
        solid(index, unitPayloadBytesMax, index * unitPayloadBytesMax),
      );
      const sink = new FileSink(units, { path: freshFile(sizeOf(units)) });
      const source = fileSource(folder.path, 64 * mebibyte);
      const lane = await openLane(at, sink, {}, { source });
      const sending = Promise.allSettled(units.map((sent) => lane.send(sent)));
      await sink.until(() => sink.begun.length > round % 3);
      if (round % 2 === 0) await turns(round);
      const [destroying, closing] = [lane.destroy(new Error("cancelled")), at.server.closeLanes("volume-1")];
      // Zeros instead of what a unit has would be another file's content.
      await destroying;
      source.close();
      const zeros = sinkFor([], 64 * mebibyte);
      await closing;
      expect(strayBytes(sink.image, imageOf(sizeOf(units), units))).toBe(0);
      sink.close();
      const successor = sinkFor([], block);
      await expectAlive(at);
      expect(successor.image.equals(Buffer.alloc(block))).toBe(true);
      expect(zeros.begun).toEqual([]);
      await sending;
    }
  });
}

function isOpenedByTicket({ world, ticketFor, dial, expectAlive }: Surroundings): void {
  test("once", async () => {
    const at = await world();
    const ticket = ticketFor(at, new MemorySink([]));
    expect(ticket).toMatch(/^[0-9a-f]{64}$/);
    const lane = await dial(at, ticket);
    await expect(dial(at, ticket)).rejects.toEqual(refused);
    await lane.close();
    await expect(dial(at, ticket)).rejects.toEqual(refused);
  });

  test("only by one that was issued", async () => {
    const at = await world();
    ticketFor(at, new MemorySink([]));
    await expect(dial(at, "ab".repeat(32))).rejects.toEqual(refused);
    await expect(dial(at, "not a ticket")).rejects.toMatchObject({ code: "BadRequest" });
  });

  test("within a minute", async () => {
    let skewMs = 0;
    const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skewMs };
    const at = await world({ clock });
    const [early, late] = [ticketFor(at, new MemorySink([])), ticketFor(at, new MemorySink([]))];
    skewMs = 30_000;
    const lane = await dial(at, early);
    await lane.close();
    skewMs = 60_000;
    await expect(dial(at, late)).rejects.toEqual(refused);
  });

  test("only by the cluster it is for, where that is proven, and never again after another one showed it", async () => {
    const at = await world();
    if (!at.hasProof) return;
    const stolen = ticketFor(at, new MemorySink([]), { peer: "another-cluster" });
    await expect(dial(at, stolen)).rejects.toEqual(refused);
    await expect(dial(at, stolen)).rejects.toThrow("unknown, used or revoked");
  });

  test("until its owner's lanes are closed", async () => {
    const at = await world();
    const [mine, other] = [ticketFor(at, new MemorySink([])), ticketFor(at, new MemorySink([]), { owner: "volume-2" })];
    await at.server.closeLanes("volume-1");
    await expect(dial(at, mine)).rejects.toEqual(refused);
    await (await dial(at, other)).close();
  });

  test("and a refusal reports no lane, writes nothing, and leaves the server alive", async () => {
    const at = await world();
    await expect(dial(at, "ab".repeat(32))).rejects.toEqual(refused);
    expect(at.laneErrors).toEqual([]);
    await expectAlive(at);
  });
}

function breaks({ world, ticketFor, dial, openLane, openRaw, expectAlive }: Surroundings): void {
  test("when the sink refuses a unit, of which nothing is written", async () => {
    const at = await world();
    const good = solid(0, block);
    const sink = new MemorySink([good]);
    const lane = await openLane(at, sink, { lane: 7 });
    await lane.send(good);
    await sink.until(() => sink.arrivals.length === 1);
    await lane.send(solid(3, block, block)).catch(() => {});
    await expect(lane.close()).rejects.toEqual(torn);
    expect(await sink.brokenBy).toMatchObject({ code: "BadRequest", message: "no unit 3 in the plan" });
    expect(at.laneErrors).toMatchObject([{ owner: "volume-1", lane: 7, error: { code: "BadRequest" } }]);
    expect(sink.image.equals(imageOf(sink.image.length, [good]))).toBe(true);
    await expectAlive(at);
  });

  test.each([block - 1, block + 1, 2 * block])(
    "when a unit is of %d bytes and not of what its plan says",
    async (bytes) => {
      const at = await world();
      const sink = new MemorySink([solid(0, block)]);
      const lane = await openLane(at, sink);
      await lane.send(solid(0, bytes)).catch(() => {});
      await expect(lane.close()).rejects.toEqual(torn);
      expect(await sink.brokenBy).toMatchObject({
        code: "BadRequest",
        message: `lane: unit 0 announces ${bytes} bytes, its plan has 4096`,
      });
      expect(sink.writes).toEqual([]);
      expect(sink.arrivals).toEqual([]);
      await expectAlive(at);
    },
  );

  test("when the source cannot be read, and says why", async () => {
    const at = await world();
    const sink = new MemorySink([solid(0, block)]);
    const damaged = new Error("a bad sector");
    const source = { fd: -1, read: () => Promise.reject(damaged) };
    const lane = await openLane(at, sink, {}, { source });
    const sending = [lane.send(solid(0, block)), lane.send(solid(1, block))];
    const outcomes = await Promise.allSettled(sending);
    expect(outcomes).toMatchObject([{ reason: damaged }, { reason: { code: "StreamTorn", cause: damaged } }]);
    await expect(lane.close()).rejects.toEqual(torn);
    expect(await sink.brokenBy).toEqual(torn);
  });

  test("when the sink cannot write, and says why on the side of the target", async () => {
    const at = await world();
    const sink = new MemorySink([solid(0, 64 * block)]);
    sink.gate = async () => {
      throw new LongshoreError("DiskFull", "no space is left");
    };
    const lane = await openLane(at, sink);
    await lane.send(solid(0, 64 * block)).catch(() => {});
    expect(await sink.brokenBy).toMatchObject({ code: "DiskFull" });
    expect(at.laneErrors).toMatchObject([{ owner: "volume-1", lane: 0, error: { code: "DiskFull" } }]);
    await expect(lane.close()).rejects.toEqual(torn);
    await expect(lane.send(solid(0, 64 * block))).rejects.toEqual(torn);
    await expectAlive(at);
  });

  test("when the last write fails after everything was sent: close rejects", async () => {
    const at = await world();
    const sink = new MemorySink([solid(0, block)]);
    const { promise, reject } = Promise.withResolvers<void>();
    sink.gate = () => promise;
    const lane = await openLane(at, sink);
    await lane.send(solid(0, block));
    const closing = lane.close();
    await sink.until(() => sink.writes.length === 1);
    reject(new LongshoreError("DiskFull", "no space is left"));
    await expect(closing).rejects.toEqual(torn);
    expect(sink.arrivals).toEqual([]);
  });

  test("when the sender destroys it within a unit: no send resolves afterwards, and the target is told", async () => {
    const at = await world();
    const units = [0, 1, 2, 3].map((index) => solid(index, unitPayloadBytesMax, index * unitPayloadBytesMax));
    const sink = new MemorySink(units, 4 * unitPayloadBytesMax);
    sink.gate = () => turns(2);
    const lane = await openLane(at, sink);
    const sending = Promise.allSettled(units.map((sent) => lane.send(sent)));
    await sink.until(() => sink.writes.length === 2);
    await lane.destroy(new Error("the job was cancelled"));
    const reason = { code: "StreamTorn", cause: { message: "the job was cancelled" } };
    expect((await sending).at(-1)).toMatchObject({ reason });
    await expect(lane.send(solid(0, block))).rejects.toMatchObject(reason);
    await expect(lane.close()).rejects.toMatchObject(reason);
    expect(await sink.brokenBy).toEqual(torn);
    await at.server.closeLanes("volume-1");
    const written = sink.bytesWritten;
    expect(written).toBeLessThan(4 * unitPayloadBytesMax);
    expect(sink.image.subarray(0, written).equals(imageOf(sink.image.length, units).subarray(0, written))).toBe(true);
    await expectAlive(at);
    expect(sink.bytesWritten).toBe(written);
  });

  test("when it is destroyed while its source is being read, and waits for that", async () => {
    const at = await world();
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    const { promise: reading, resolve: isReading } = Promise.withResolvers<void>();
    const source = {
      fd: -1,
      read: () => {
        isReading();
        return gate;
      },
    };
    const lane = await openLane(at, new MemorySink([solid(0, block)]), {}, { source });
    const sending = lane.send(solid(0, block)).catch((error) => error);
    await reading;
    let isDestroyed = false;
    const destroying = lane.destroy(new Error("cancelled")).then(() => {
      isDestroyed = true;
    });
    expect(await sending).toEqual(torn);
    await expectAlive(at);
    expect(isDestroyed).toBe(false);
    open();
    await destroying;
  });

  test("when the signal it was opened with aborts, before or after", async () => {
    const at = await world();
    const sink = new MemorySink([solid(0, block)]);
    const reason = new Error("the agent stops");
    await expect(dial(at, ticketFor(at, sink), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const stop = new AbortController();
    const opening = dial(at, ticketFor(at, sink), { signal: stop.signal });
    stop.abort(reason);
    await expect(opening).rejects.toBe(reason);
    const later = new AbortController();
    const lane = await dial(at, ticketFor(at, sink), { signal: later.signal });
    later.abort(reason);
    await expect(lane.send(solid(0, block))).rejects.toEqual(torn);
    await lane.destroy(reason);
  });

  test("when its pace does", async () => {
    const at = await world();
    const noMore = new Error("no more");
    let asked = 0;
    const take = async () => {
      asked++;
      if (asked > 2) throw noMore;
    };
    const sink = new MemorySink([solid(0, mebibyte)], mebibyte);
    const lane = await openLane(at, sink, {}, { pace: { take } });
    await expect(lane.send(solid(0, mebibyte))).rejects.toMatchObject({ code: "StreamTorn", cause: noMore });
    await expect(lane.close()).rejects.toEqual(torn);
  });

  test("when nothing moves for the idle time in the middle of a unit, but not while the disk is slow", async () => {
    const at = await world({ serverLimits: { idleMs: 1500 } });
    const [slow, stalled] = [new MemorySink([solid(0, block)]), new MemorySink([solid(0, block)])];
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    slow.gate = () => gate;
    const lane = await openLane(at, slow);
    await lane.send(solid(0, block));
    await slow.until(() => slow.writes.length === 1);
    // Each of these waits its idle time in full, so the slow one waits longer.
    for (let round = 0; round < 2; round++) {
      const stream = await openRaw(at, stalled);
      stream.on("error", () => {});
      stream.write(header(solid(0, block)));
      await closed(stream);
    }
    while (at.laneErrors.length < 2) await turns(1);
    expect(at.laneErrors.map(({ error }) => error)).toEqual([torn, torn]);
    open();
    await lane.close();
    expect(slow.bytesWritten).toBe(block);
    expect(stalled.writes).toEqual([]);
  });

  test("when the preamble does not come in time", async () => {
    const at = await world({ serverLimits: { openingMs: 1000 } });
    const stream = await at.dialRaw();
    stream.on("error", () => {});
    stream.resume();
    stream.write("LSH");
    await closed(stream);
    expect(at.laneErrors).toEqual([]);
  });
}

function withSlowSink({ world, openLane, expectAlive }: Surroundings): void {
  test("holds no more than the window, and holds the sender back", async () => {
    const at = await world({ serverLimits: { windowBytesMax } });
    const units = Array.from({ length: 512 }, (_, index) => solid(index, mebibyte));
    const sink = new MemorySink(units, mebibyte);
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    sink.gate = () => gate;
    const lane = await openLane(at, sink);
    let unitsSent = 0;
    const sending = (async () => {
      for (const sent of units) {
        await lane.send(sent);
        unitsSent++;
      }
    })();
    const outcome = sending.catch((error) => error);
    await sink.until(() => sink.bytesInFlight >= windowBytesMax);
    // Both would run on meanwhile, were there no window.
    for (let round = 0; round < 10; round++) await expectAlive(at);
    expect(sink.bytesInFlight).toBeLessThan(windowBytesMax + gatherBytes);
    // Both windows, and what the kernel's socket buffers take: a few MiB as a rule, 64 where they are tuned.
    expect(unitsSent).toBeLessThan(256);
    await lane.destroy(new Error("seen enough"));
    expect(await outcome).toMatchObject({ code: "StreamTorn" });
    open();
    await at.server.closeLanes("volume-1");
    expect(sink.bytesInFlightMax).toBeLessThan(windowBytesMax + gatherBytes);
  });

  test("loses nothing of what it was held back with", async () => {
    const at = await world({ serverLimits: { windowBytesMax: 8 * block } });
    const sent = solid(0, unitPayloadBytesMax);
    const sink = new MemorySink([sent], unitPayloadBytesMax);
    sink.gate = () => turns(1);
    const lane = await openLane(at, sink);
    await lane.send(sent);
    await lane.close();
    expect(sink.image.equals(payloadOf(sent))).toBe(true);
    expect(sink.bytesInFlightMax).toBeLessThan(8 * block + gatherBytes);
  });

  test("has only so many writes in flight, however small the extents are", async () => {
    const at = await world({ serverLimits: { writesInFlightMax: 8 } });
    const extents = Array.from({ length: 2000 }, (_, index) => [index * 2 * block, 100] as const);
    const sink = new MemorySink([unit(0, ...extents)], 4096 * block);
    sink.gate = () => turns(1);
    const lane = await openLane(at, sink);
    await lane.send(unit(0, ...extents));
    await lane.close();
    expect(sink.writes.length).toBe(2000);
    expect(sink.writesInFlightMax).toBe(8);
    expect(sink.arrivals).toEqual([0]);
  });
}

function closingLanes({ world, ticketFor, dial, openLane, expectAlive }: Surroundings): void {
  const gated = (units: readonly LaneUnit[], sizeBytes?: number) => {
    const sink = new MemorySink(units, sizeBytes);
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    sink.gate = () => gate;
    return { sink, open };
  };

  test("joins the writes in flight, lets none follow, and reports nothing", async () => {
    const at = await world();
    const sent = solid(0, unitPayloadBytesMax);
    const { sink: mine, open } = gated([sent], unitPayloadBytesMax);
    const other = new MemorySink([solid(0, block)]);
    const [lane, otherLane] = [await openLane(at, mine), await openLane(at, other, { owner: "volume-2" })];
    const outcome = lane
      .send(sent)
      .then(() => lane.close())
      .catch((error) => error);
    await mine.until(() => mine.writes.length >= 2);
    let isClosed = false;
    const closing = at.server.closeLanes("volume-1").then(() => {
      isClosed = true;
    });
    expect(await outcome).toMatchObject({ code: "StreamTorn" });
    await expectAlive(at);
    expect(isClosed).toBe(false);
    const { writes, bytesInFlight } = { writes: mine.writes.length, bytesInFlight: mine.bytesInFlight };
    expect(bytesInFlight).toBeGreaterThan(0);
    open();
    await closing;
    expect(mine.bytesInFlight).toBe(0);
    expect(mine.writes.length).toBe(writes);
    await expectAlive(at);
    expect(mine.writes.length).toBe(writes);
    expect(mine.arrivals).toEqual([]);
    expect(at.laneErrors).toEqual([]);
    await otherLane.send(solid(0, block));
    await otherLane.close();
  });

  test("joins the writes of lanes that broke before as well", async () => {
    const at = await world();
    const { sink, open } = gated([solid(0, block)]);
    const lane = await openLane(at, sink);
    await lane.send(solid(0, block));
    await sink.until(() => sink.writes.length === 1);
    await lane.destroy(new Error("gone"));
    await sink.brokenBy;
    let isClosed = false;
    const closing = at.server.closeLanes("volume-1").then(() => {
      isClosed = true;
    });
    await expectAlive(at);
    expect(isClosed).toBe(false);
    open();
    await closing;
    expect(sink.bytesInFlight).toBe(0);
  });

  test("that has none is done at once, and new tickets work afterwards", async () => {
    const at = await world();
    await at.server.closeLanes("nobody");
    await at.server.closeLanes("volume-1");
    await (await openLane(at, new MemorySink([]))).close();
  });

  test("is part of closing the server, which also ends connections that are no lanes yet", async () => {
    const at = await world();
    const { sink, open } = gated([solid(0, block)]);
    const lane = await openLane(at, sink);
    await lane.send(solid(0, block));
    await sink.until(() => sink.writes.length === 1);
    const idle = await at.dialRaw();
    idle.on("error", () => {});
    idle.resume();
    const idleClosed = closed(idle);
    const unused = ticketFor(at, sink);
    const closing = at.server.close();
    await idleClosed;
    open();
    await closing;
    expect(sink.bytesInFlight).toBe(0);
    await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
    await expect(dial(at, unused)).rejects.toMatchObject({ code: "Unreachable" });
  });
}

function takesNoGarbage({ world, openRaw, expectAlive }: Surroundings): void {
  /** Sends these bytes, as they are, and waits for the end. */
  const sendRaw = async (stream: Duplex, bytes: Uint8Array) => {
    stream.on("error", () => {});
    stream.resume();
    const gone = closed(stream);
    stream.end(bytes);
    await gone;
  };

  test("instead of a preamble", async () => {
    const at = await world();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        await sendRaw(await at.dialRaw(), bytes);
      }),
      { numRuns: 25 },
    );
    expect(at.laneErrors).toEqual([]);
    await expectAlive(at);
  });

  test.each<[string, Buffer]>([
    ["another protocol", Buffer.from("GET / HTTP/1.1\r\nHost: longshore.example\r\n\r\n")],
    ["the version before", renderPreamble("ab".repeat(32)).fill(1, 7, 8)],
    ["another version", renderPreamble("ab".repeat(32)).fill(9, 7, 8)],
  ])("such as %s, and says so", async (_what, bytes) => {
    const at = await world();
    const stream = await at.dialRaw();
    stream.on("error", () => {});
    const answer = once(stream, "data");
    stream.write(bytes);
    expect(String((await answer)[0])).toContain("lane: ");
    await closed(stream.resume());
    await expectAlive(at);
  });

  test.each<[string, Buffer, string]>([
    ["no unit", Buffer.alloc(100, 7), "no unit begins"],
    ["a damaged header", header(solid(0, 9)).fill(9, 6, 7), "header is damaged"],
    ["a wrong checksum", header(solid(0, 9)).fill(0, 12, 16), "header is damaged"],
    ["a unit of nothing", forged(0), "announces 0 bytes"],
    ["a unit that is too long", forged(unitPayloadBytesMax + 1), "announces 8388609 bytes"],
    ["a unit of 4 GiB", forged(2 ** 32 - 1), "announces 4294967295 bytes"],
    ["a unit of the wrong length", Buffer.concat([forged(10), Buffer.alloc(10)]), "announces 10 bytes, its plan has 9"],
    ["a unit that is not planned", header(solid(7, 9)), "no unit 7 in the plan"],
    ["a unit's beginning only", header(solid(0, 9)).subarray(0, 13), "cut short"],
    ["a unit cut short", Buffer.concat([header(solid(0, 9)), Buffer.alloc(8)]), "cut short"],
    ["an end without the last word", Buffer.alloc(0), "cut short"],
    ["bytes after the last word", Buffer.concat([renderEnd(), Buffer.alloc(1)]), "bytes follow the end"],
    ["a last word with a number in it", renderEnd().fill(1, 7, 8), "no unit begins"],
  ])("such as %s", async (_what, bytes, message) => {
    const at = await world();
    const sink = new MemorySink([solid(0, 9)]);
    await sendRaw(await openRaw(at, sink), bytes);
    const error = await sink.brokenBy;
    expect(error).toBeInstanceOf(LongshoreError);
    expect(error.message).toContain(message);
    expect(sink.bytesWritten).toBe(0);
    expect(sink.arrivals).toEqual([]);
    await expectAlive(at);
  });

  test("in a stream that was cut or damaged: what is written lies in units that began, before the damage", async () => {
    const at = await world();
    const units = [0, 1, 2, 3].map((index) =>
      unit(index, [index * 3 * block, 1000], [(index * 3 + 1) * block, index + 1]),
    );
    const stream = Buffer.concat([...units.flatMap((sent) => [header(sent), payloadOf(sent)]), renderEnd()]);
    const damage = fc.oneof(
      fc.nat(stream.length - 1).map((length) => stream.subarray(0, length)),
      fc.tuple(fc.nat(stream.length - 1), fc.integer({ min: 1, max: 255 })).map(([index, mask]) => {
        const damaged = Buffer.from(stream);
        damaged[index] = (damaged[index] ?? 0) ^ mask;
        return damaged;
      }),
    );
    await fc.assert(
      fc.asyncProperty(damage, async (bytes) => {
        const sink = new MemorySink(units);
        await sendRaw(await openRaw(at, sink), bytes);
        await at.server.closeLanes("volume-1");
        expect(sink.begun).toEqual(units.slice(0, sink.begun.length).map(({ index }) => index));
        expect(sink.arrivals).toEqual(sink.begun.slice(0, sink.arrivals.length));
        for (const write of sink.writes) {
          const within = units[write.unit]?.extents.filter(
            ([offset, length]) => offset <= write.offset && write.offset + write.length <= offset + length,
          );
          expect(sink.begun).toContain(write.unit);
          expect(within).toHaveLength(1);
        }
      }),
      { numRuns: 40 },
    );
    await expectAlive(at);
  });
}

function header(sent: LaneUnit): Buffer {
  const bytes = Buffer.alloc(unitHeaderBytes);
  writeUnitHeader({ unit: sent.index, payloadBytes: bytesOf(sent) }, bytes, 0);
  return bytes;
}

/** A header of unit 0 whose checksum is right, and whose length no sender of ours need have sent. */
function forged(payloadBytes: number): Buffer {
  const bytes = header(solid(0, 1));
  bytes.writeUInt32BE(payloadBytes, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 12)), 12);
  return bytes;
}
