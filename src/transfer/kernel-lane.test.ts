import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, openSync, truncateSync, writeFileSync } from "node:fs";
import { connect as connectTcp, createServer as createTcpServer, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import koffi from "koffi";
import { type LaneWorldOptions, laneContract } from "../../test/contract/lane.ts";
import {
  FileSink,
  fileSource,
  imageOf,
  MemorySink,
  memorySource,
  payloadOf,
  unit,
} from "../../test/contract/lane-ends.ts";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { mountLoop } from "../../test/fakes/loop-fs.ts";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { needs } from "../../test/needs.ts";
import { systemClock } from "../base/clock.ts";
import { systemDice } from "../base/dice.ts";
import { parseAddress } from "../domain/address.ts";
import type { LongshoreError } from "../domain/errors.ts";
import { type KernelLaneDialerOptions, kernelLaneDialer } from "./kernel-lane-dialer.ts";
import { openKernelLaneServer } from "./kernel-lane-server.ts";
import { type LaneDialer, type LaneSink, type LaneSource, type LaneUnit, unitPayloadBytesMax } from "./lane.ts";
import { renderEnd, renderPreamble, renderStatus } from "./lane-codec.ts";
import { type LaneServerOptions, laneServerLimits } from "./lane-serving.ts";
import { LaneThreads } from "./lane-threads.ts";

const crashes: Error[] = [];
const threads = () => new LaneThreads({ clock: systemClock, onCrash: (error) => crashes.push(error) });
const [sourceThreads, targetThreads] = [threads(), threads()];
afterAll(async () => {
  await Promise.all([sourceThreads.close(), targetThreads.close()]);
  expect(crashes).toEqual([]);
});

async function openWorld(overrides: Partial<LaneServerOptions> = {}) {
  const laneErrors: { owner: string; lane: number; error: Error }[] = [];
  const refusals: LongshoreError[] = [];
  const server = await openKernelLaneServer({
    listen: { host: "127.0.0.1", port: 0 },
    onLaneError: (owner, lane, error) => laneErrors.push({ owner, lane, error }),
    onRefusal: (error) => refusals.push(error),
    clock: systemClock,
    dice: systemDice,
    threads: targetThreads,
    ...overrides,
  });
  return { server, laneErrors, refusals };
}

laneContract("plain TCP through the kernel", async ({ clock, serverLimits }: LaneWorldOptions) => {
  const { server, laneErrors } = await openWorld({ clock, limits: serverLimits });
  const sockets: Socket[] = [];
  return {
    server,
    dialer: dialer({ limits: { openingMs: 60_000 } }),
    sourceUid: "source-uid",
    targetUid: "target-uid",
    hasProof: false,
    laneErrors,
    dialRaw: async () => {
      const socket = connectTcp(parseAddress(server.address));
      sockets.push(socket);
      await once(socket, "connect");
      return socket;
    },
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await server.close();
    },
  };
});

const nobody = new AbortController().signal;
const small = unit(0, [0, 3]);
const plain = { source: memorySource, hasDigests: true, peerClusterUid: "target-uid" };
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
let folder: TemporaryFolder;
beforeAll(async () => {
  folder = await temporaryFolder("kernel-lane");
});
afterAll(async () => {
  await folder.remove();
});

function dialer(overrides: Partial<KernelLaneDialerOptions> = {}) {
  return kernelLaneDialer({ clock: systemClock, threads: sourceThreads, ...overrides });
}

async function world(overrides: Partial<LaneServerOptions> = {}) {
  const opened = await openWorld(overrides);
  cleanups.push(() => opened.server.close());
  const issue = (sink: LaneSink = new MemorySink([small])) =>
    opened.server.issue({ owner: "volume", epoch: 1, lane: 0, peerClusterUid: "source-uid" }, sink);
  const open = ({
    sink,
    by = dialer(),
    source = memorySource,
  }: {
    sink?: LaneSink;
    by?: LaneDialer;
    source?: LaneSource;
  } = {}) => by.open({ ...plain, source, address: opened.server.address, ticket: issue(sink) }, nobody);
  return { ...opened, issue, open };
}

function few() {
  const threads = new LaneThreads({ clock: systemClock, limits: { threadsMax: 1 } });
  cleanups.push(() => threads.close());
  return threads;
}

function fileSinkOf(units: readonly LaneUnit[], path: string, sizeBytes: number): FileSink {
  writeFileSync(path, "");
  truncateSync(path, sizeBytes);
  const sink = new FileSink(units, { path });
  cleanups.push(() => sink.close());
  return sink;
}

const large = (index: number) => unit(index, [index * unitPayloadBytesMax, unitPayloadBytesMax]);

describe("a kernel lane server", () => {
  needs("root")(
    "leaves nothing of a write that failed halfway to the next unit, on this lane's thread or another's",
    async () => {
      const disk = await mountLoop({ fs: "ext4", sizeBytes: 24 * 2 ** 20 });
      cleanups.push(() => disk.unmount());
      const source = fileSource(folder.path, 64 * 2 ** 20);
      cleanups.push(() => source.close());
      const { open, laneErrors } = await world({ threads: few() });
      const sizeBytes = 4 * unitPayloadBytesMax;
      for (let round = 0; round < 3; round++) {
        const units = [0, 1, 2, 3].map(large);
        const full = fileSinkOf(units, join(disk.path, `full-${round}`), sizeBytes);
        const lane = await open({ sink: full, source });
        await Promise.allSettled(units.map((sent) => lane.send(sent)));
        await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
        expect(await full.brokenBy).toMatchObject({ code: "DiskFull", cause: { code: "ENOSPC" } });
        expect(full.arrivals.length).toBeLessThan(4);
        truncateSync(join(disk.path, `full-${round}`), 0);
        // From other places of the source, so that leftovers would be seen.
        const next = [
          unit(7, [unitPayloadBytesMax + 12_288, 5_000_000], [40_000_000, 4096]),
          unit(8, [50_000_000, 1_000_001]),
        ];
        const sink = fileSinkOf(next, join(folder.path, `next-${round}`), 52_000_000);
        const after = await open({ sink, source });
        await Promise.all(next.map((sent) => after.send(sent)));
        await after.close();
        expect(sink.image.equals(imageOf(52_000_000, next))).toBe(true);
      }
      expect(laneErrors.map(({ error }) => error)).toMatchObject(Array(3).fill({ code: "DiskFull" }));
    },
  );

  test("tells who comes when it has no thread left, and keeps the ticket", async () => {
    const clock = new FakeClock();
    const only = few();
    let asked = 0;
    const run: LaneThreads["run"] = (...wish) => {
      asked++;
      return only.run(...wish);
    };
    const threads = { run } as LaneThreads;
    const { server, open, issue, refusals } = await world({ threads, clock });
    const lane = await open();
    const to = { ...plain, address: server.address, ticket: issue() };
    const refused = expect(dialer().open(to, nobody)).rejects.toMatchObject({
      code: "TicketRefused",
      message: expect.stringContaining("too many lanes are open here"),
    });
    while (asked < 2) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(laneServerLimits.openingMs);
    await refused;
    expect(refusals).toMatchObject([{ code: "TicketRefused" }]);
    await lane.close();
    await (await dialer().open(to, nobody)).close();
  });

  test("refuses who does not wait for the answer to its ticket", async () => {
    const { server, issue } = await world();
    const socket = connectTcp(parseAddress(server.address));
    socket.on("error", () => {});
    socket.write(Buffer.concat([renderPreamble(issue()), renderEnd()]));
    const [answer] = (await once(socket, "data")) as [Buffer];
    expect(String(answer)).toContain("bytes came before the ticket was accepted");
    socket.destroy();
  });

  test("turns connections away while there are as many as it takes", async () => {
    const { open } = await world({ limits: { connectionsMax: 1 } });
    const lane = await open();
    await expect(open()).rejects.toMatchObject({ code: "Unreachable" });
    await lane.close();
  });

  test("announces the host it is told to, with the port it has", async () => {
    const { server } = await world({ advertiseHost: "agent.example" });
    expect(server.address).toMatch(/^agent\.example:[0-9]+$/);
  });
});

describe("a kernel lane dialer", () => {
  test("says so when nobody listens", async () => {
    const { server, open } = await world();
    await server.close();
    await expect(open()).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("waits for a thread no longer than a lane may take to open", async () => {
    const { open } = await world();
    const threads = few();
    const only = await open({ by: dialer({ threads }) });
    const by = dialer({ threads, limits: { openingMs: 300 } });
    await expect(open({ by })).rejects.toMatchObject({
      code: "Unreachable",
      message: expect.stringContaining("no answer within 300 ms"),
    });
    await only.close();
  });

  test("breaks its lanes when its threads are ended, and opens no more", async () => {
    const { open } = await world();
    const threads = new LaneThreads({ clock: systemClock });
    const lane = await open({ by: dialer({ threads }) });
    const closing = expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
    await lane.destroy(new Error("not needed"));
    const idle = await open({ by: dialer({ threads }) });
    await threads.close();
    await closing;
    await expect(idle.send(small)).rejects.toMatchObject({ code: "StreamTorn" });
    await expect(open({ by: dialer({ threads }) })).rejects.toMatchObject({
      code: "Unreachable",
      message: expect.stringContaining("the lanes' threads are ended"),
    });
  });

  /** A server that answers every preamble with these bytes and then does as told. */
  async function answering(answer: Buffer, then: (socket: Socket) => void = () => {}) {
    const server = createTcpServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.pause();
        socket.write(answer);
        then(socket);
      });
      cleanups.push(() => socket.destroy());
    }).listen(0, "127.0.0.1");
    cleanups.unshift(() => server.close());
    await once(server, "listening");
    const address = `127.0.0.1:${(server.address() as { port: number }).port}`;
    return { ...plain, address, ticket: "ab".repeat(32) };
  }

  test.each<[string, Buffer, string]>([
    ["another protocol", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak the lane protocol"],
    ["more than an answer", Buffer.concat([renderStatus(), Buffer.from("x")]), "malformed"],
  ])("refuses a server that answers with %s", async (_what, answer, message) => {
    await expect(dialer().open(await answering(answer), nobody)).rejects.toMatchObject({
      code: "BadRequest",
      message: expect.stringContaining(message),
    });
  });

  test("gives up on a server that says nothing, or closes without an answer", async () => {
    const silent = await answering(Buffer.alloc(0));
    await expect(dialer({ limits: { openingMs: 40 } }).open(silent, nobody)).rejects.toMatchObject({
      code: "Unreachable",
      message: expect.stringContaining("no answer within 40 ms"),
    });
    const closing = await answering(Buffer.alloc(0), (socket) => socket.end());
    await expect(dialer().open(closing, nobody)).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("breaks a lane on which nothing moves any more", async () => {
    const to = await answering(renderStatus());
    const lane = await dialer({ limits: { idleMs: 60 } }).open(to, nobody);
    const sendMany = async () => {
      for (;;) await lane.send(unit(0, [0, 2 ** 20]));
    };
    await expect(sendMany()).rejects.toMatchObject({
      code: "StreamTorn",
      cause: { message: "lane: nothing moved for 60 ms" },
    });
  });

  test.each<[string, (socket: Socket) => void]>([
    ["ends without the last word", (socket) => void socket.on("end", () => socket.end()).resume()],
    ["is spoken on by the target", (socket) => void socket.once("data", () => socket.write("hello?")).resume()],
    ["is closed by the target", (socket) => void socket.destroy()],
  ])("does not take a connection that %s for a whole transfer", async (_what, then) => {
    const lane = await dialer().open(await answering(renderStatus(), then), nobody);
    await lane.send(small).catch(() => {});
    await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
  });

  test("notices that the target closed a lane on which nothing is being sent", async () => {
    const { server, open } = await world();
    const lane = await open();
    await server.closeLanes("volume");
    // Its thread looks from time to time; destroying waits for it in any case.
    await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
  });

  test("sends from a file that the kernel cannot send from by itself", async () => {
    const content = Buffer.from(payloadOf(unit(0, [0, 1_000_000])));
    const offset = Number(koffi.address(content));
    const memory = openSync("/proc/self/mem", "r");
    cleanups.push(() => closeSync(memory));
    const sent = unit(0, [offset + 5, 300_000], [offset + 400_000, 100], [offset + 500_000, 400_000]);
    const received: Buffer[] = [];
    const sink: LaneSink = {
      fd: -1,
      begin: () => sent.extents,
      write: async (_unit, _offset, data) => void received.push(Buffer.from(data)),
      arrived: () => {},
    };
    const { open } = await world();
    const lane = await open({ sink, source: { fd: memory, read: memorySource.read } });
    const wanted = Buffer.concat(
      sent.extents.map(([at, length]) => content.subarray(at - offset, at - offset + length)),
    );
    expect(await lane.send(sent)).toBe(createHash("sha256").update(wanted).digest("hex"));
    await lane.close();
    expect(Buffer.concat(received).equals(wanted)).toBe(true);
  });
});
