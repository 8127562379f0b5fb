import { once } from "node:events";
import { connect as connectTcp, createServer as createTcpServer, type Socket } from "node:net";
import { connect, createServer, type TLSSocket } from "node:tls";
import { afterAll, afterEach, describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type LaneWorldOptions, laneContract } from "../../test/contract/lane.ts";
import { MemorySink, memorySource, payloadOf, unit } from "../../test/contract/lane-ends.ts";
import { authorizeBy, type TestCluster, testCluster } from "../../test/contract/lane-pki.ts";
import { systemClock } from "../base/clock.ts";
import { systemDice } from "../base/dice.ts";
import { parseAddress } from "../domain/address.ts";
import type { LongshoreError } from "../domain/errors.ts";
import type { KernelTargetJob } from "./kernel-target-thread.ts";
import type { Lane } from "./lane.ts";
import { renderStatus } from "./lane-codec.ts";
import { LaneSignals } from "./lane-signals.ts";
import { LaneThreads } from "./lane-threads.ts";
import { type TlsLaneDialerOptions, tlsLaneDialer } from "./tls-lane-dialer.ts";
import { openTlsLaneServer, type TlsLaneServerOptions } from "./tls-lane-server.ts";

const [source, target] = await Promise.all([testCluster("source-uid"), testCluster("target-uid")]);
const [sourceAgent, targetAgent] = await Promise.all([source.issue(), target.issue()]);
const authorize = authorizeBy([source, target]);
const loopback = { host: "127.0.0.1", port: 0 };
const nobody = new AbortController().signal;
const crashes: Error[] = [];
const threads = () => new LaneThreads({ clock: systemClock, onCrash: (error) => crashes.push(error) });
const [sourceThreads, targetThreads] = [threads(), threads()];
afterAll(async () => {
  await Promise.all([sourceThreads.close(), targetThreads.close()]);
  expect(crashes).toEqual([]);
});
const small = unit(0, [0, 3]);
/** A dialler's wishes that matter to nobody here. */
const plain = { source: memorySource, hasDigests: true };

async function openWorld(overrides: Partial<TlsLaneServerOptions> = {}) {
  const laneErrors: { owner: string; lane: number; error: Error }[] = [];
  const refusals: LongshoreError[] = [];
  const server = await openTlsLaneServer({
    credentials: { current: () => targetAgent },
    trust: () => [source.ca],
    authorize,
    listen: loopback,
    onLaneError: (owner, lane, error) => laneErrors.push({ owner, lane, error }),
    onRefusal: (error) => refusals.push(error),
    clock: systemClock,
    dice: systemDice,
    threads: targetThreads,
    ...overrides,
  });
  const sink = new MemorySink([small]);
  const issue = () => server.issue({ owner: "volume", epoch: 1, lane: 0, peerClusterUid: "source-uid" }, sink);
  return { server, laneErrors, refusals, issue };
}

function dialer(overrides: Partial<TlsLaneDialerOptions> = {}) {
  return tlsLaneDialer({
    credentials: { current: () => sourceAgent },
    trust: () => [target.ca],
    authorize,
    clock: systemClock,
    threads: sourceThreads,
    ...overrides,
  });
}

laneContract("mutual TLS 1.3", async ({ clock, serverLimits }: LaneWorldOptions) => {
  const { server, laneErrors } = await openWorld({ clock, limits: serverLimits });
  const sockets: TLSSocket[] = [];
  return {
    server,
    dialer: dialer({ limits: { openingMs: 60_000 } }),
    sourceUid: source.clusterUid,
    targetUid: target.clusterUid,
    hasProof: true,
    laneErrors,
    dialRaw: async () => {
      const socket = connect({ ...parseAddress(server.address), ...sourceAgent, rejectUnauthorized: false });
      sockets.push(socket);
      await once(socket, "secureConnect");
      return socket;
    },
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await server.close();
    },
  };
});

/** What the other side was told first, we hear of soon. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** A machine that is busy may be later than a limit that is short for others' sake. */
async function openPatiently(open: () => Promise<Lane>): Promise<Lane> {
  for (;;) {
    try {
      return await open();
    } catch (error) {
      if ((error as LongshoreError).code !== "Unreachable") throw error;
    }
  }
}

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

async function world(overrides: Partial<TlsLaneServerOptions> = {}) {
  const opened = await openWorld(overrides);
  cleanups.push(() => opened.server.close());
  const open = (by = dialer(), ticket = opened.issue()) =>
    by.open({ ...plain, address: opened.server.address, ticket, peerClusterUid: "target-uid" }, nobody);
  return { ...opened, open };
}

const as = async (cluster: TestCluster, daysAgo = 0) => {
  const issued = await cluster.issue(daysAgo);
  return dialer({ credentials: { current: () => issued } });
};

describe("a tls lane server", () => {
  test.each<[string, () => ReturnType<typeof as>]>([
    ["of an unknown CA", async () => as(await testCluster("source-uid"))],
    ["of an agent whose certificate has expired", () => as(source, 3)],
    [
      "of another kind of cluster that is trusted, but not to open lanes",
      async () => as(await testCluster("third-uid")),
    ],
  ])("tells the client %s why it is turned away, and keeps its ticket", async (_who, client) => {
    const { open, issue, refusals, laneErrors } = await world();
    const ticket = issue();
    await expect(open(await client(), ticket)).rejects.toMatchObject({ code: "Unauthenticated" });
    await until(() => refusals.length === 1);
    expect(refusals).toMatchObject([{ code: "Unauthenticated" }]);
    expect(laneErrors).toEqual([]);
    await (await open(dialer(), ticket)).close();
  });

  test("does not let the trusted CA of one cluster speak for another", async () => {
    const impostor = await testCluster("source-uid");
    const { open } = await world({ trust: () => [source.ca, impostor.ca] });
    await expect(open(await as(impostor))).rejects.toMatchObject({ code: "Unauthenticated" });
    await (await open()).close();
  });

  test("lets nobody in when it trusts nobody", async () => {
    const { open } = await world({ trust: () => [] });
    await expect(open()).rejects.toMatchObject({ code: "Unauthenticated" });
  });

  test("turns away a client without a certificate, and one that speaks an older TLS", async () => {
    const { server, open, refusals } = await world();
    const address = { ...parseAddress(server.address), rejectUnauthorized: false };
    const bare = connect(address);
    const answer = (await once(bare, "data")) as [Buffer];
    expect(String(answer[0])).toContain("no CA trusted here");
    await once(bare.resume(), "close");
    const old = connect({ ...address, ...sourceAgent, maxVersion: "TLSv1.2" });
    await expect(once(old, "secureConnect")).rejects.toThrow("alert protocol version");
    await until(() => refusals.length === 2);
    expect(refusals.map(({ code }) => code)).toEqual(["Unauthenticated", "Unauthenticated"]);
    await (await open()).close();
  });

  test("follows its trust from one connection to the next", async () => {
    let trusted: readonly string[] = [];
    const { open } = await world({ trust: () => trusted });
    await expect(open()).rejects.toMatchObject({ code: "Unauthenticated" });
    trusted = [target.ca, source.ca];
    await (await open()).close();
    trusted = [target.ca];
    await expect(open()).rejects.toMatchObject({ code: "Unauthenticated" });
  });

  test("does not let one CA that cannot be read keep out those of the others", async () => {
    const unreadable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const { open } = await world({ trust: () => [unreadable, source.ca] });
    await (await open()).close();
  });

  test("lets nobody in while its certificate and key do not fit, and goes on afterwards", async () => {
    let own = targetAgent;
    const { open, refusals } = await world({ credentials: { current: () => own } });
    await (await open()).close();
    own = { cert: targetAgent.cert, key: (await target.issue()).key };
    await expect(open()).rejects.toMatchObject({ code: "Unreachable" });
    await until(() => refusals.length === 1);
    expect(refusals[0]?.message).toContain("our certificates cannot be used");
    own = targetAgent;
    await (await open()).close();
  });

  test("changes its certificate while a lane is open, which goes on; new lanes get the new one", async () => {
    let own = targetAgent;
    const { open } = await world({ credentials: { current: () => own } });
    const lane = await open();
    own = await target.issue();
    const seen: string[] = [];
    const watching = dialer({
      authorize: (chain) => {
        seen.push(chain[0]?.toString() ?? "");
        return authorize(chain);
      },
    });
    await (await open(watching)).close();
    expect(seen).toEqual([own.cert]);
    await lane.send(small);
    await lane.close();
  });

  test("resumes no session, for it would carry the certificates of an earlier connection", async () => {
    const { server, open } = await world();
    const client = { ...parseAddress(server.address), ...sourceAgent, rejectUnauthorized: false };
    const first = connect(client);
    first.on("error", () => {});
    const [session] = (await once(first, "session")) as [Buffer];
    first.destroy();
    const second = connect({ ...client, session });
    await once(second, "secureConnect");
    expect(second.isSessionReused()).toBe(false);
    second.destroy();
    await (await open()).close();
  });

  test("prefers the cipher that machines with AES instructions do the fastest, and takes the others", async () => {
    const { server } = await world();
    const client = { ...parseAddress(server.address), ...sourceAgent, rejectUnauthorized: false };
    for (const [ciphers, expected] of [
      [undefined, "TLS_AES_128_GCM_SHA256"],
      ["TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"],
    ] as const) {
      const socket = connect({ ...client, ...(ciphers === undefined ? {} : { ciphers }) });
      await once(socket, "secureConnect");
      expect(socket.getCipher().name).toBe(expected);
      socket.destroy();
    }
  });

  test("turns connections away while there are as many as it takes", async () => {
    const { server, open } = await world({ limits: { connectionsMax: 1 } });
    const lane = await open();
    await expect(open()).rejects.toMatchObject({ code: "Unreachable" });
    await lane.close();
    const socket = connectTcp(parseAddress(server.address));
    socket.on("error", () => {});
    socket.destroy();
  });

  test("survives clients that speak no TLS at all, or hang up", async () => {
    const { server, open, laneErrors } = await world({ limits: { openingMs: 1000 } });
    for (const bytes of ["GET / HTTP/1.1\r\n\r\n", Buffer.alloc(4096, 0x16), ""]) {
      const socket = connectTcp(parseAddress(server.address));
      socket.on("error", () => {});
      socket.end(bytes);
      await once(socket.resume(), "close");
    }
    const reset = connectTcp(parseAddress(server.address));
    await once(reset, "connect");
    reset.resetAndDestroy();
    await (await openPatiently(open)).close();
    expect(laneErrors).toEqual([]);
  });

  test("ends a connection that does not finish its handshake in time", async () => {
    const { server } = await world({ limits: { openingMs: 40 } });
    const socket = connectTcp(parseAddress(server.address));
    await once(socket.resume(), "close");
  });

  test("hangs up on who waits too long for a thread, while lanes that block theirs have them all", async () => {
    const receiving = new LaneThreads({ clock: systemClock, limits: { threadsMax: 1 } });
    cleanups.push(() => receiving.close());
    const signals = new LaneSignals();
    const job: KernelTargetJob = {
      role: "kernelTarget",
      idleMs: 60_000,
      windowBytesMax: 4096,
      signals: signals.buffer,
    };
    await receiving.run(job, { isBlocking: true, signal: nobody, onRevoke: () => signals.stop() });
    const { server, refusals } = await world({ threads: receiving, limits: { openingMs: 40 } });
    const socket = connectTcp(parseAddress(server.address));
    await once(socket.resume(), "close");
    await until(() => refusals.length === 1);
    expect(refusals).toMatchObject([{ code: "TicketRefused", message: "lane: too many lanes are open here" }]);
  });

  test("serves more lanes than it has threads", async () => {
    const few = () => new LaneThreads({ clock: systemClock, limits: { threadsMax: 1 } });
    const [sending, receiving] = [few(), few()];
    cleanups.push(() => sending.close());
    cleanups.push(() => receiving.close());
    const { open } = await world({ threads: receiving });
    const client = dialer({ threads: sending });
    const lanes = await Promise.all(Array.from({ length: 6 }, () => open(client)));
    await Promise.all(lanes.map((lane) => lane.send(small).then(() => lane.close())));
    expect([sending.size, receiving.size]).toEqual([1, 1]);
  });

  test("announces the host it is told to, with the port it has", async () => {
    const { server } = await world({ advertiseHost: "agent.example" });
    expect(server.address).toMatch(/^agent\.example:[0-9]+$/);
  });
});

describe("a tls lane dialer", () => {
  test("does not show its ticket to a server of an unknown CA", async () => {
    const { open, laneErrors } = await world();
    const distrusting = dialer({ trust: () => [source.ca] });
    await expect(open(distrusting)).rejects.toMatchObject({ code: "Untrusted" });
    expect(laneErrors).toEqual([]);
  });

  test("does not show its ticket to an agent of another cluster", async () => {
    const { server, issue } = await world();
    const ticket = issue();
    const to = { ...plain, address: server.address, ticket, peerClusterUid: "third-uid" };
    await expect(dialer().open(to, nobody)).rejects.toMatchObject({
      code: "Untrusted",
      message: expect.stringContaining("of cluster target-uid, not of cluster third-uid"),
    });
    await (await dialer().open({ ...to, peerClusterUid: "target-uid" }, nobody)).close();
  });

  test("says so when nobody listens", async () => {
    const { server, open } = await world();
    await server.close();
    await expect(open(dialer(), "ab".repeat(32))).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("gives up on a server that accepts the connection and says nothing", async () => {
    const silent = createTcpServer((socket) => void socket.on("error", () => {}).resume()).listen(loopback);
    cleanups.push(async () => silent.close());
    await once(silent, "listening");
    const impatient = dialer({ limits: { openingMs: 40 } });
    const address = `127.0.0.1:${(silent.address() as { port: number }).port}`;
    await expect(
      impatient.open({ ...plain, address, ticket: "ab".repeat(32), peerClusterUid: "target-uid" }, nobody),
    ).rejects.toMatchObject({ code: "Unreachable", message: expect.stringContaining("no answer within 40 ms") });
  });

  /** A server of the right cluster that answers every preamble with these bytes and then does as told. */
  async function answering(answer: Buffer, then: (socket: TLSSocket) => void = () => {}) {
    const server = createServer({ ...targetAgent, minVersion: "TLSv1.3" }, (socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.pause();
        socket.write(answer);
        then(socket);
      });
      cleanups.push(async () => socket.destroy());
    }).listen(loopback);
    cleanups.unshift(async () => server.close());
    await once(server, "listening");
    const address = `127.0.0.1:${(server.address() as { port: number }).port}`;
    return { ...plain, address, ticket: "ab".repeat(32), peerClusterUid: "target-uid" };
  }

  test.each<[string, Buffer, string]>([
    ["another protocol", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak the lane protocol"],
    ["too long a reason", Buffer.from("LSHS\u0001\u0001\u007f\u007f"), "malformed"],
    ["more than an answer", Buffer.concat([renderStatus(), Buffer.from("x")]), "malformed"],
  ])("refuses a server that answers with %s", async (_what, answer, message) => {
    await expect(dialer().open(await answering(answer), nobody)).rejects.toMatchObject({
      code: "BadRequest",
      message: expect.stringContaining(message),
    });
  });

  test("says so when the server closes without an answer", async () => {
    const to = await answering(Buffer.alloc(0), (socket) => socket.end());
    await expect(dialer().open(to, nobody)).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("breaks a lane on which nothing moves any more", async () => {
    const to = await answering(renderStatus());
    const lane = await dialer({ limits: { idleMs: 60 } }).open(to, nobody);
    const sendMany = async () => {
      for (;;) await lane.send(unit(0, [0, 2 ** 20]));
    };
    await expect(sendMany()).rejects.toMatchObject({
      code: "StreamTorn",
      cause: { message: "nothing moved for 60 ms" },
    });
  });

  test("does not take a connection that ends without the last word for a whole transfer", async () => {
    const to = await answering(renderStatus(), (socket) => {
      socket.on("end", () => socket.end()).resume();
    });
    const lane = await dialer().open(to, nobody);
    await lane.send(small).catch(() => {});
    await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
  });

  test("breaks a lane on which the target talks", async () => {
    const to = await answering(renderStatus(), (socket) => {
      socket.once("data", () => socket.write("hello?")).resume();
    });
    const lane = await dialer().open(to, nobody);
    await lane.send(small).catch(() => {});
    await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
  });
});

/** Forwards to the address; `spoil` sees what goes there, and returns what arrives. */
async function proxyTo(address: string, spoil: (chunk: Buffer, to: Socket) => Buffer): Promise<string> {
  const proxy = createTcpServer((from) => {
    const to = connectTcp(parseAddress(address));
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
    from.on("data", (chunk: Buffer) => to.write(spoil(chunk, to)));
    to.pipe(from);
  }).listen(loopback);
  cleanups.push(async () => proxy.close());
  await once(proxy, "listening");
  return `127.0.0.1:${(proxy.address() as { port: number }).port}`;
}

describe("a tls lane on a bad network", () => {
  const sent = unit(0, [0, 1024 * 1024]);
  const payload = payloadOf(sent);

  test.each<[string, (spoilAt: number) => (chunk: Buffer, to: Socket) => Buffer]>([
    [
      "flips a bit",
      (spoilAt) => {
        let passed = 0;
        return (chunk) => {
          const index = spoilAt - passed;
          passed += chunk.length;
          if (index >= 0 && index < chunk.length) chunk[index] = (chunk[index] ?? 0) ^ 1;
          return chunk;
        };
      },
    ],
    [
      "cuts the stream",
      (spoilAt) => {
        let passed = 0;
        return (chunk, to) => {
          passed += chunk.length;
          if (passed > spoilAt) to.end();
          return chunk.subarray(0, Math.max(0, chunk.length - Math.max(0, passed - spoilAt)));
        };
      },
    ],
  ])("that %s anywhere writes nothing that was not sent, and no close resolves", async (_what, spoiler) => {
    // A damaged length makes either side wait for bytes that never come.
    const limits = { openingMs: 300, idleMs: 300 };
    const { server } = await world({ limits });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: payload.length }), async (spoilAt) => {
        const sink = new MemorySink([sent], payload.length);
        const ticket = server.issue({ owner: "volume", epoch: 1, lane: 0, peerClusterUid: "source-uid" }, sink);
        const address = await proxyTo(server.address, spoiler(spoilAt));
        const outcome = (async () => {
          const to = { ...plain, address, ticket, peerClusterUid: "target-uid" };
          const lane = await dialer({ limits }).open(to, nobody);
          await lane.send(sent);
          await lane.close();
        })();
        await expect(outcome).rejects.toMatchObject({ code: expect.stringMatching(/^(StreamTorn|Unreachable)$/) });
        await server.closeLanes("volume");
        // TLS ignores some bits of a handshake's first record; then everything may arrive, and is as it was sent.
        const written = sink.bytesWritten;
        expect(written === payload.length ? [[], [0]] : [[]]).toContainEqual(sink.arrivals);
        expect(sink.image.subarray(0, written).equals(payload.subarray(0, written))).toBe(true);
      }),
      { numRuns: 15 },
    );
  });
});
