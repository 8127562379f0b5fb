// Either end of a lane is killed in the middle of a unit: the other one hears of it, and what was written is what was sent.
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import { systemClock } from "../../src/base/clock.ts";
import type { Lane } from "../../src/transfer/lane.ts";
import { LaneThreads } from "../../src/transfer/lane-threads.ts";
import { FileSink, fileSource, imageOf, strayBytes } from "../contract/lane-ends.ts";
import { testCluster } from "../contract/lane-pki.ts";
import { type TemporaryFolder, temporaryFolder } from "../fakes/temporary-folder.ts";
import {
  dialerOf,
  type Identity,
  type Order,
  serverOf,
  sourceUid,
  type Transport,
  targetUid,
  unitAt,
  unitBytes,
  unitCount,
} from "./lane-program.ts";

const sizeBytes = unitCount * unitBytes;
const units = Array.from({ length: unitCount }, (_, index) => unitAt(index));
const wanted = imageOf(sizeBytes, units);
const rounds = 4;
const threads = [new LaneThreads({ clock: systemClock }), new LaneThreads({ clock: systemClock })] as const;
let folder: TemporaryFolder;
let identities: { readonly source: Identity; readonly target: Identity };

beforeAll(async () => {
  folder = await temporaryFolder("lane-kill");
  const [source, target] = await Promise.all([testCluster(sourceUid), testCluster(targetUid)]);
  const clusters = [source, target].map(({ clusterUid, ca }) => ({ clusterUid, ca }));
  identities = {
    source: { own: await source.issue(), clusters },
    target: { own: await target.issue(), clusters },
  };
});
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});
afterAll(async () => {
  for (const pool of threads) await pool.close();
  await folder.remove();
});

function start(order: Order): ChildProcess {
  const child = fork(join(import.meta.dirname, "lane-program.ts"), {
    execArgv: ["--disable-warning=ExperimentalWarning"],
    env: { ...process.env, NODE_COMPILE_CACHE: join(import.meta.dirname, "../../.cache/compiled") },
  });
  children.push(child);
  child.send(order);
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

/** Again and again, as all of it may have arrived before anybody is killed; how each of the last ones ended. */
async function sendUntilBroken(lane: Lane): Promise<PromiseSettledResult<unknown>[]> {
  for (;;) {
    const sent = await Promise.allSettled(units.map((unit) => lane.send(unit)));
    if (sent.some(({ status }) => status === "rejected")) return sent;
  }
}

function emptyImage(name: string): string {
  const path = join(folder.path, name);
  writeFileSync(path, "");
  truncateSync(path, sizeBytes);
  return path;
}

describe.each<Transport>(["tls", "kernel"])("a lane over %s", (transport) => {
  test("whose source is killed breaks at the target, which holds whole units, and goes on with another", async () => {
    const server = await serverOf(transport, identities.target, threads[1]);
    const source = fileSource(folder.path, sizeBytes);
    for (let round = 0; round < rounds; round++) {
      const sink = new FileSink(units, { path: emptyImage(`source-killed-${transport}-${round}`) });
      const ticket = server.issue({ owner: "volume", epoch: 1, lane: 0, peerClusterUid: sourceUid }, sink);
      const path = join(folder.path, `source-${sizeBytes}`);
      const child = start({
        ...{ kind: "send", transport, identity: identities.source, address: server.address, ticket, path },
      });
      await sink.until(() => sink.begun.length > 3 + 5 * round);
      await kill(child);
      expect(await sink.brokenBy).toMatchObject({ code: "StreamTorn" });
      await server.closeLanes("volume");
      const { image, arrivals } = { image: sink.image, arrivals: [...sink.arrivals] };
      expect(strayBytes(image, wanted)).toBe(0);
      for (const index of arrivals) {
        const [offset, end] = [index * unitBytes, (index + 1) * unitBytes];
        expect(image.subarray(offset, end).equals(imageOf(sizeBytes, [unitAt(index)]).subarray(offset, end))).toBe(
          true,
        );
      }
      sink.close();
    }
    source.close();
    await server.close();
  });

  test("whose target is killed breaks at the source, which reads no more", async () => {
    const dialer = dialerOf(transport, identities.source, threads[0]);
    for (let round = 0; round < rounds; round++) {
      const path = emptyImage(`target-killed-${transport}-${round}`);
      const child = start({ kind: "serve", transport, identity: identities.target, path });
      let said = 0;
      child.on("message", () => said++);
      const [{ address, ticket }] = (await once(child, "message")) as [{ address: string; ticket: string }];
      const source = fileSource(folder.path, sizeBytes);
      const never = new AbortController().signal;
      const to = { address, ticket, source, peerClusterUid: targetUid, hasDigests: round % 2 === 0 };
      const lane = await dialer.open(to, never);
      const sending = sendUntilBroken(lane);
      // After the address, what has arrived; several of it may be heard of at once.
      while (said < 2 + 2 * round) await once(child, "message");
      await kill(child);
      expect((await sending).at(-1)).toMatchObject({ status: "rejected", reason: { code: "StreamTorn" } });
      await expect(lane.close()).rejects.toMatchObject({ code: "StreamTorn" });
      await lane.destroy(new Error("it broke"));
      source.close();
      expect(strayBytes(readFileSync(path), wanted)).toBe(0);
      // Its number is free for others.
      closeSync(openSync(path, "r"));
    }
  });
});
