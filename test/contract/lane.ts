// What every transport of lanes keeps to, whatever carries the bytes: integrity, tickets, bounded memory, and a sink that
// is never handed what it did not accept, nor anything after its lanes were closed.
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { crc32 } from "node:zlib";
import { afterEach, describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Frame, Lane, LaneDialer, LaneServer, LaneSink } from "../../src/transfer/lane.ts";
import {
  frameBytesMax,
  frameHeaderBytes,
  preambleBytes,
  renderEnd,
  writeFrameHeader,
} from "../../src/transfer/lane-codec.ts";

export interface LaneWorld {
  readonly server: LaneServer;
  readonly dialer: LaneDialer;
  /** The cluster that dials, and the one that serves. */
  readonly sourceUid: string;
  readonly targetUid: string;
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

const block = 4096;
const windowBytesMax = 1024 * 1024;
/** The receiver gathers up to this much before a write, on top of its window. */
const gatherBytes = 256 * 1024;

/** An image that takes frames within its size, and remembers what it was told. */
class ImageSink implements LaneSink {
  readonly image: Buffer;
  readonly frames: Frame[] = [];
  readonly writes: Frame[] = [];
  readonly broken: (error: Error) => void;
  /** Resolves with the error when the lane breaks. */
  readonly brokenBy: Promise<Error>;
  bytesInFlight = 0;
  bytesInFlightMax = 0;
  bytesWritten = 0;
  /** What a write waits for. */
  gate: () => Promise<void> = async () => {};
  #onWrite: (() => void)[] = [];

  constructor(sizeBytes = 64 * block) {
    this.image = Buffer.alloc(sizeBytes);
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.brokenBy = promise;
    this.broken = resolve;
  }

  accept(frame: Frame): void {
    if (frame.offset + frame.length > this.image.length) {
      throw new LongshoreError("BadRequest", `no extent of the plan at ${frame.offset}`);
    }
    this.frames.push(frame);
  }

  async write(unit: number, offset: number, data: Uint8Array): Promise<void> {
    this.writes.push({ unit, offset, length: data.length });
    this.bytesInFlight += data.length;
    this.bytesInFlightMax = Math.max(this.bytesInFlight, this.bytesInFlightMax);
    for (const notify of this.#onWrite.splice(0)) notify();
    try {
      await this.gate();
      this.image.set(data, offset);
      this.bytesWritten += data.length;
    } finally {
      this.bytesInFlight -= data.length;
    }
  }

  /** Resolves when the condition holds, looking again at every write. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#onWrite.push(resolve));
  }
}

const neverAborted = () => new AbortController().signal;
/** Lets whatever can happen without time happen. */
const turns = async (count = 20) => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
};
/** Repeats after 16 MiB, and not before. */
const noise = Buffer.alloc(16 * 1024 * 1024);
for (let at = 0; at < noise.length; at += 4) noise.writeUInt32LE(Math.imul(at + 4, 0x9e3779b1) >>> 0, at);
/** A payload that tells when it is in the wrong place. */
const pattern = ({ unit, offset, length }: Frame) => {
  const start = (offset + unit * 4) % (noise.length - frameBytesMax);
  return noise.subarray(start, start + length);
};

/** `openWorld` makes both sides anew for every test. */
export function laneContract(transport: string, openWorld: (options: LaneWorldOptions) => Promise<LaneWorld>): void {
  const worlds: LaneWorld[] = [];
  afterEach(async () => {
    for (const world of worlds.splice(0)) await world.stop();
  });
  const world = async ({ clock, serverLimits }: Partial<LaneWorldOptions> = {}) => {
    const limits = { windowBytesMax, ...serverLimits };
    const opened = await openWorld({ clock: clock ?? systemClock, serverLimits: limits });
    worlds.push(opened);
    return opened;
  };
  const ticketFor = (at: LaneWorld, sink: LaneSink, { owner = "volume-1", lane = 0, peer = at.sourceUid } = {}) =>
    at.server.issue({ owner, epoch: 1, lane, peerClusterUid: peer }, sink);
  const dial = (at: LaneWorld, ticket: string, signal = neverAborted()): Promise<Lane> =>
    at.dialer.open({ address: at.server.address, ticket, peerClusterUid: at.targetUid }, signal);
  const openLane = (at: LaneWorld, sink: LaneSink, binding = {}) => dial(at, ticketFor(at, sink, binding));
  /** A lane opened by hand; what is sent on it is up to the test. */
  const openRaw = async (at: LaneWorld, sink: LaneSink) => {
    const stream = await at.dialRaw();
    stream.write(preamble(ticketFor(at, sink)));
    await once(stream, "data");
    return stream;
  };
  const expectAlive = async (at: LaneWorld) => {
    const sink = new ImageSink();
    const lane = await openLane(at, sink, { owner: "another" });
    const frame = { unit: 1, offset: block, length: block };
    await lane.send(frame, pattern(frame));
    await lane.close();
    expect(sink.image.subarray(block, 2 * block).equals(pattern(frame))).toBe(true);
  };

  describe(`a lane over ${transport}`, () => {
    describe("carries frames", () => {
      test("of every size byte for byte, whole when close resolves, and counts what it sent", async () => {
        const at = await world();
        const sizes = fc.oneof(
          fc.integer({ min: 1, max: 64 }).map((blocks) => blocks * block),
          fc.integer({ min: 1, max: 1024 * 1024 }),
        );
        await fc.assert(
          fc.asyncProperty(fc.array(sizes, { minLength: 1, maxLength: 8 }), async (lengths) => {
            const frames: Frame[] = [];
            for (const [unit, length] of lengths.entries()) {
              const last = frames.at(-1);
              frames.push({ unit, offset: last === undefined ? 0 : last.offset + last.length, length });
            }
            const total = lengths.reduce((sum, length) => sum + length, 0);
            const sink = new ImageSink(total);
            const lane = await openLane(at, sink);
            for (const frame of frames) await lane.send(frame, pattern(frame));
            await lane.close();
            expect(sink.image.equals(Buffer.concat(frames.map(pattern)))).toBe(true);
            expect(sink.frames).toEqual(frames);
            expect(lane.bytesSent).toBe(preambleBytes + (frames.length + 1) * frameHeaderBytes + total);
          }),
          { numRuns: 20 },
        );
        expect(at.laneErrors).toEqual([]);
      });

      test("of the greatest length and offset", async () => {
        const at = await world();
        const sink = new ImageSink(0);
        sink.accept = (frame) => void sink.frames.push(frame);
        sink.image.set = () => {};
        const lane = await openLane(at, sink);
        const frame = { unit: 2 ** 32 - 1, offset: 2 ** 53 - 1 - frameBytesMax, length: frameBytesMax };
        await lane.send(frame, Buffer.alloc(frameBytesMax));
        await lane.close();
        expect(sink.frames).toEqual([frame]);
        expect(sink.bytesWritten).toBe(frameBytesMax);
      });

      test("that are sent all at once, in order", async () => {
        const at = await world();
        const sink = new ImageSink(200 * block);
        const lane = await openLane(at, sink);
        const frames = Array.from({ length: 100 }, (_, unit) => ({ unit, offset: unit * 2 * block, length: block }));
        await Promise.all(frames.map((frame) => lane.send(frame, pattern(frame))));
        await lane.close();
        expect(sink.frames).toEqual(frames);
        for (const frame of frames) {
          expect(sink.image.subarray(frame.offset, frame.offset + block).equals(pattern(frame))).toBe(true);
        }
      });

      test("whose buffers the sender reuses as soon as a send has resolved", async () => {
        const at = await world();
        const sink = new ImageSink();
        const lane = await openLane(at, sink);
        const buffer = Buffer.alloc(block);
        for (let unit = 0; unit < 64; unit++) {
          await lane.send({ unit, offset: unit * block, length: block }, buffer.fill(unit));
        }
        buffer.fill(0xff);
        await lane.close();
        for (let unit = 0; unit < 64; unit++) expect(sink.image[unit * block]).toBe(unit);
      });

      test("that reach the sink without more being sent after them", async () => {
        const at = await world();
        const sink = new ImageSink();
        const lane = await openLane(at, sink);
        const frame = { unit: 0, offset: 0, length: block };
        await lane.send(frame, pattern(frame));
        await sink.until(() => sink.writes.length === 1);
        await lane.close();
      });

      test("on many lanes of many owners at once, each to its own sink", async () => {
        const at = await world();
        const sinks = Array.from({ length: 8 }, () => new ImageSink(block * 512));
        await Promise.all(
          sinks.map(async (sink, lane) => {
            const open = await openLane(at, sink, { owner: `volume-${lane % 3}`, lane });
            const frame = { unit: lane, offset: 0, length: block * 512 };
            await open.send(frame, pattern(frame));
            await open.close();
            expect(sink.image.equals(pattern(frame))).toBe(true);
          }),
        );
      });
    });

    describe("is opened by a ticket", () => {
      const refused = expect.objectContaining({ code: "TicketRefused" });

      test("once", async () => {
        const at = await world();
        const sink = new ImageSink();
        const ticket = ticketFor(at, sink);
        expect(ticket).toMatch(/^[0-9a-f]{64}$/);
        const lane = await dial(at, ticket);
        await expect(dial(at, ticket)).rejects.toEqual(refused);
        await lane.close();
        await expect(dial(at, ticket)).rejects.toEqual(refused);
      });

      test("only by one that was issued", async () => {
        const at = await world();
        ticketFor(at, new ImageSink());
        await expect(dial(at, "ab".repeat(32))).rejects.toEqual(refused);
        await expect(dial(at, "not a ticket")).rejects.toMatchObject({ code: "BadRequest" });
      });

      test("within a minute", async () => {
        let skewMs = 0;
        const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skewMs };
        const at = await world({ clock });
        const [early, late] = [ticketFor(at, new ImageSink()), ticketFor(at, new ImageSink())];
        skewMs = 30_000;
        const lane = await dial(at, early);
        await lane.close();
        skewMs = 60_000;
        await expect(dial(at, late)).rejects.toEqual(refused);
      });

      test("only by the cluster it is for, and never again after another one showed it", async () => {
        const at = await world();
        const stolen = ticketFor(at, new ImageSink(), { peer: "another-cluster" });
        await expect(dial(at, stolen)).rejects.toEqual(refused);
        await expect(dial(at, stolen)).rejects.toThrow("unknown, used or revoked");
      });

      test("until its owner's lanes are closed", async () => {
        const at = await world();
        const [mine, other] = [ticketFor(at, new ImageSink()), ticketFor(at, new ImageSink(), { owner: "volume-2" })];
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
    });

    describe("breaks", () => {
      const torn = expect.objectContaining({ code: "StreamTorn" });
      /** Sends until the lane breaks; the error. */
      const sendUntilTorn = async (lane: Lane) => {
        for (;;) {
          try {
            await lane.send({ unit: 0, offset: 0, length: 64 * block }, Buffer.alloc(64 * block));
          } catch (error) {
            return error;
          }
          await turns(1);
        }
      };

      test("when the sink does not accept a frame, of which nothing is written", async () => {
        const at = await world();
        const sink = new ImageSink();
        const lane = await openLane(at, sink, { lane: 7 });
        const good = { unit: 0, offset: 0, length: block };
        await lane.send(good, pattern(good));
        await lane.send({ unit: 0, offset: 64 * block, length: block }, Buffer.alloc(block));
        await expect(lane.close()).rejects.toEqual(torn);
        expect(await sink.brokenBy).toMatchObject({ code: "BadRequest", message: "no extent of the plan at 262144" });
        expect(at.laneErrors).toMatchObject([{ owner: "volume-1", lane: 7, error: { code: "BadRequest" } }]);
        expect(sink.writes).toEqual([good]);
        await expectAlive(at);
      });

      test("when the sink cannot write, and says why on the side of the target", async () => {
        const at = await world();
        const sink = new ImageSink();
        sink.gate = async () => {
          throw new LongshoreError("DiskFull", "no space is left");
        };
        const lane = await openLane(at, sink);
        expect(await sendUntilTorn(lane)).toEqual(torn);
        expect(await sink.brokenBy).toMatchObject({ code: "DiskFull" });
        expect(at.laneErrors).toMatchObject([{ owner: "volume-1", lane: 0, error: { code: "DiskFull" } }]);
        await expect(lane.close()).rejects.toEqual(torn);
        await expectAlive(at);
      });

      test("when the last write fails after everything was sent: close rejects", async () => {
        const at = await world();
        const sink = new ImageSink();
        const { promise, reject } = Promise.withResolvers<void>();
        sink.gate = () => promise;
        const lane = await openLane(at, sink);
        await lane.send({ unit: 0, offset: 0, length: block }, Buffer.alloc(block));
        const closing = lane.close();
        await sink.until(() => sink.writes.length === 1);
        reject(new LongshoreError("DiskFull", "no space is left"));
        await expect(closing).rejects.toEqual(torn);
      });

      test("when the sender destroys it within a frame: no send resolves afterwards, and the target is told", async () => {
        const at = await world();
        const sink = new ImageSink(frameBytesMax);
        sink.gate = () => turns(2);
        const lane = await openLane(at, sink);
        const frame = { unit: 0, offset: 0, length: frameBytesMax };
        const sending = lane.send(frame, pattern(frame));
        await sink.until(() => sink.writes.length === 2);
        lane.destroy(new Error("the job was cancelled"));
        const reason = { code: "StreamTorn", cause: { message: "the job was cancelled" } };
        await expect(sending).rejects.toMatchObject(reason);
        await expect(lane.send(frame, pattern(frame))).rejects.toMatchObject(reason);
        await expect(lane.close()).rejects.toMatchObject(reason);
        expect(await sink.brokenBy).toEqual(torn);
        await at.server.closeLanes("volume-1");
        const written = sink.bytesWritten;
        expect(written).toBeLessThan(frameBytesMax);
        expect(sink.image.subarray(0, written).equals(pattern(frame).subarray(0, written))).toBe(true);
        await turns();
        expect(sink.bytesWritten).toBe(written);
        await expectAlive(at);
      });

      test("when the signal it was opened with aborts, before or after", async () => {
        const at = await world();
        const sink = new ImageSink();
        const reason = new Error("the agent stops");
        await expect(dial(at, ticketFor(at, sink), AbortSignal.abort(reason))).rejects.toBe(reason);
        const stop = new AbortController();
        const opening = dial(at, ticketFor(at, sink), stop.signal);
        stop.abort(reason);
        await expect(opening).rejects.toBe(reason);
        const later = new AbortController();
        const lane = await dial(at, ticketFor(at, sink), later.signal);
        later.abort(reason);
        await expect(lane.send({ unit: 0, offset: 0, length: 1 }, Buffer.alloc(1))).rejects.toEqual(torn);
      });

      test("when nothing moves for the idle time in the middle of a frame, but not while the disk is slow", async () => {
        const at = await world({ serverLimits: { idleMs: 400 } });
        const [slow, stalled] = [new ImageSink(), new ImageSink()];
        const { promise: gate, resolve: open } = Promise.withResolvers<void>();
        slow.gate = () => gate;
        const lane = await openLane(at, slow);
        await lane.send({ unit: 0, offset: 0, length: block }, Buffer.alloc(block));
        await slow.until(() => slow.writes.length === 1);
        // Each of these waits its idle time in full, so the slow one waits several.
        for (let round = 0; round < 3; round++) {
          const stream = await openRaw(at, stalled);
          stream.on("error", () => {});
          stream.write(header({ unit: 0, offset: 0, length: block }));
          await once(stream, "close");
        }
        expect(at.laneErrors.map(({ error }) => error)).toEqual([torn, torn, torn]);
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
        await once(stream, "close");
        expect(at.laneErrors).toEqual([]);
      });
    });

    describe("with a slow sink", () => {
      test("holds no more than the window, and holds the sender back", async () => {
        const at = await world({ serverLimits: { windowBytesMax } });
        const frame = { unit: 0, offset: 0, length: 1024 * 1024 };
        const sink = new ImageSink(frame.length);
        const { promise: gate, resolve: open } = Promise.withResolvers<void>();
        sink.gate = () => gate;
        const lane = await openLane(at, sink);
        let framesSent = 0;
        const sending = (async () => {
          for (; framesSent < 512; framesSent++) await lane.send(frame, pattern(frame));
        })();
        const outcome = sending.catch((error) => error);
        await sink.until(() => sink.bytesInFlight >= windowBytesMax);
        // Both would run on in these turns, were there no window.
        await turns(500);
        expect(sink.bytesInFlight).toBeLessThan(windowBytesMax + gatherBytes);
        // Both windows, and what the kernel's socket buffers take: a few MiB as a rule, 64 where they are tuned.
        expect(framesSent).toBeLessThan(256);
        lane.destroy(new Error("seen enough"));
        expect(await outcome).toMatchObject({ code: "StreamTorn" });
        open();
        await at.server.closeLanes("volume-1");
        expect(sink.bytesInFlightMax).toBeLessThan(windowBytesMax + gatherBytes);
      });

      test("loses nothing of what it was held back with", async () => {
        const at = await world({ serverLimits: { windowBytesMax: 8 * block } });
        const frame = { unit: 0, offset: 0, length: 8 * 1024 * 1024 };
        const sink = new ImageSink(frame.length);
        sink.gate = () => turns(1);
        const lane = await openLane(at, sink);
        await lane.send(frame, pattern(frame));
        await lane.close();
        expect(sink.image.equals(pattern(frame))).toBe(true);
        expect(sink.bytesInFlightMax).toBeLessThan(8 * block + gatherBytes);
      });

      test("has only so many writes in flight, however small the frames are", async () => {
        const at = await world({ serverLimits: { writesInFlightMax: 8 } });
        const sink = new ImageSink(4096 * block);
        let inFlight = 0;
        let inFlightMax = 0;
        sink.gate = async () => {
          inFlightMax = Math.max(inFlightMax, ++inFlight);
          await turns(1);
          inFlight--;
        };
        const lane = await openLane(at, sink);
        for (let index = 0; index < 2000; index++) {
          const frame = { unit: 0, offset: index * 2 * block, length: 100 };
          await lane.send(frame, Buffer.alloc(100, index));
        }
        await lane.close();
        expect(sink.writes.length).toBe(2000);
        expect(inFlightMax).toBe(8);
      });
    });

    describe("closing the lanes of an owner", () => {
      test("joins the writes in flight, lets none follow, and reports nothing", async () => {
        const at = await world();
        const [mine, other] = [new ImageSink(frameBytesMax), new ImageSink()];
        const { promise: gate, resolve: open } = Promise.withResolvers<void>();
        mine.gate = () => gate;
        const [lane, otherLane] = [await openLane(at, mine), await openLane(at, other, { owner: "volume-2" })];
        const sending = lane
          .send({ unit: 0, offset: 0, length: frameBytesMax }, Buffer.alloc(frameBytesMax, 1))
          .then(() => lane.close());
        const outcome = sending.catch((error) => error);
        await mine.until(() => mine.writes.length >= 2);
        let isClosed = false;
        const closing = at.server.closeLanes("volume-1").then(() => {
          isClosed = true;
        });
        expect(await outcome).toMatchObject({ code: "StreamTorn" });
        await turns();
        expect(isClosed).toBe(false);
        const { writes, bytesInFlight } = { writes: mine.writes.length, bytesInFlight: mine.bytesInFlight };
        expect(bytesInFlight).toBeGreaterThan(0);
        open();
        await closing;
        expect(mine.bytesInFlight).toBe(0);
        expect(mine.writes.length).toBe(writes);
        await turns();
        expect(mine.writes.length).toBe(writes);
        expect(at.laneErrors).toEqual([]);
        await otherLane.send({ unit: 0, offset: 0, length: block }, Buffer.alloc(block));
        await otherLane.close();
      });

      test("joins the writes of lanes that broke before as well", async () => {
        const at = await world();
        const sink = new ImageSink();
        const { promise: gate, resolve: open } = Promise.withResolvers<void>();
        sink.gate = () => gate;
        const lane = await openLane(at, sink);
        await lane.send({ unit: 0, offset: 0, length: block }, Buffer.alloc(block));
        await sink.until(() => sink.writes.length === 1);
        lane.destroy(new Error("gone"));
        await sink.brokenBy;
        let isClosed = false;
        const closing = at.server.closeLanes("volume-1").then(() => {
          isClosed = true;
        });
        await turns();
        expect(isClosed).toBe(false);
        open();
        await closing;
        expect(sink.bytesInFlight).toBe(0);
      });

      test("that has none is done at once, and new tickets work afterwards", async () => {
        const at = await world();
        await at.server.closeLanes("nobody");
        await at.server.closeLanes("volume-1");
        await (await openLane(at, new ImageSink())).close();
      });

      test("is part of closing the server, which also ends connections that are no lanes yet", async () => {
        const at = await world();
        const sink = new ImageSink();
        const { promise: gate, resolve: open } = Promise.withResolvers<void>();
        sink.gate = () => gate;
        const lane = await openLane(at, sink);
        await lane.send({ unit: 0, offset: 0, length: block }, Buffer.alloc(block));
        await sink.until(() => sink.writes.length === 1);
        const idle = await at.dialRaw();
        idle.on("error", () => {});
        idle.resume();
        const idleClosed = once(idle, "close");
        const unused = ticketFor(at, sink);
        const closing = at.server.close();
        await idleClosed;
        open();
        await closing;
        expect(sink.bytesInFlight).toBe(0);
        await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
        await expect(dial(at, unused)).rejects.toMatchObject({ code: "Unreachable" });
      });
    });

    describe("takes no garbage", () => {
      /** Sends these bytes, as they are, and waits for the end. */
      const sendRaw = async (stream: Duplex, bytes: Uint8Array) => {
        stream.on("error", () => {});
        stream.resume();
        const closed = once(stream, "close");
        stream.end(bytes);
        await closed;
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
        ["another version", Buffer.from(preamble("ab".repeat(32))).fill(2, 7, 8)],
      ])("such as %s, and says so", async (_what, bytes) => {
        const at = await world();
        const stream = await at.dialRaw();
        stream.on("error", () => {});
        const answer = once(stream, "data");
        stream.write(bytes);
        expect(String((await answer)[0])).toContain("lane: ");
        await once(stream.resume(), "close");
        await expectAlive(at);
      });

      test.each<[string, Buffer, string]>([
        ["no frame", Buffer.alloc(100, 7), "no frame begins"],
        ["a damaged header", header({ unit: 0, offset: 0, length: 1 }).fill(9, 6, 7), "header is damaged"],
        ["a frame of nothing", forged({ length: 0 }), "announces 0 bytes"],
        ["a frame that is too long", forged({ length: frameBytesMax + 1 }), "announces 8388609 bytes"],
        ["a frame of 4 GiB", forged({ length: 2 ** 32 - 1 }), "announces 4294967295 bytes"],
        ["a frame past all numbers", forged({ high: 2 ** 32 - 1 }), "at 18446744"],
        ["a frame's beginning only", header({ unit: 0, offset: 0, length: 9 }).subarray(0, 20), "cut short"],
        ["a frame cut short", Buffer.concat([header({ unit: 0, offset: 0, length: 9 }), Buffer.alloc(8)]), "cut short"],
        ["an end without the last word", Buffer.alloc(0), "cut short"],
        ["bytes after the last word", Buffer.concat([renderEnd(), Buffer.alloc(1)]), "bytes follow the end"],
        ["a last word with a number in it", Buffer.from(renderEnd()).fill(1, 7, 8), "no frame begins"],
      ])("such as %s", async (_what, bytes, message) => {
        const at = await world();
        const sink = new ImageSink();
        await sendRaw(await openRaw(at, sink), bytes);
        const error = await sink.brokenBy;
        expect(error).toBeInstanceOf(LongshoreError);
        expect(error.message).toContain(message);
        expect(sink.bytesWritten).toBe(0);
        await expectAlive(at);
      });

      test("in a stream that was cut or damaged: what is written lies in accepted frames, before the damage", async () => {
        const at = await world();
        const frames = [0, 1, 2, 3].map((unit) => ({ unit, offset: unit * 3 * block, length: (unit + 1) * 1000 }));
        const stream = Buffer.concat([...frames.flatMap((frame) => [header(frame), pattern(frame)]), renderEnd()]);
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
            const sink = new ImageSink();
            await sendRaw(await openRaw(at, sink), bytes);
            await at.server.closeLanes("volume-1");
            expect(sink.frames).toEqual(frames.slice(0, sink.frames.length));
            for (const write of sink.writes) {
              const within = sink.frames.filter(
                ({ unit, offset, length }) =>
                  unit === write.unit && offset <= write.offset && write.offset + write.length <= offset + length,
              );
              expect(within).toHaveLength(1);
            }
          }),
          { numRuns: 40 },
        );
        await expectAlive(at);
      });
    });
  });
}

function preamble(ticket: string): Buffer {
  return Buffer.concat([Buffer.from("LSHLANE\u0001"), Buffer.from(ticket, "hex")]);
}

function header(frame: Frame): Buffer {
  const bytes = Buffer.alloc(frameHeaderBytes);
  writeFrameHeader(frame, bytes, 0);
  return bytes;
}

/** A header whose checksum is right, and whose numbers no sender of ours would send. */
function forged({ high = 0, length = 1 }: { high?: number; length?: number }): Buffer {
  const bytes = header({ unit: 0, offset: 0, length: 1 });
  bytes.writeUInt32BE(high, 8);
  bytes.writeUInt32BE(length, 16);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 20)), 20);
  return bytes;
}
