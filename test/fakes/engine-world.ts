// A real engine as the contract suite wants it: between a source cluster that sends to it and a target it sends to, both
// real engines too, with the two calls held up that a test wants to happen when it says so.
import { open } from "node:fs/promises";
import { systemClock } from "../../src/base/clock.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import { defaultLimits } from "../../src/engine/engine-options.ts";
import { punchHole } from "../../src/native/file-calls.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import type { AgentWorld } from "../contract/agent-api.ts";
import { type Cluster, openClusters, pair } from "./engines.ts";

const sizeBytes = 2 ** 20;

export async function engineWorld(): Promise<AgentWorld> {
  let aheadMs = 0;
  const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs };
  const clusters = await openClusters(["tested", "source", "target"], { limits: { attemptsMax: 1_000_000 }, clock });
  const [tested, source, target] = clusters.all as [Cluster, Cluster, Cluster];
  const api = tested.engine.api;
  const mayRun = holdClaims(target);
  const commits = holdCommits(tested);
  await target.engine.api.putSource("tested", { clusterName: "tested", clusterUid: tested.uid, caBundle: "ca" });
  let round = 0;
  let writes = 0;
  return {
    api,
    location: { clusterName: "target", seeds: ["target:1"], caBundle: "ca" },
    source: { clusterName: "elsewhere", clusterUid: "uid-elsewhere", caBundle: "ca", quotaBytes: 2 ** 40 },
    async succeedJob(name) {
      mayRun.add(name);
      await finished(api, name);
    },
    async arrive() {
      await pair(source, tested);
      const { uid } = await source.engine.api.putVolume("remote", { sizeBytes });
      const peer = tested.engine.peer(source.uid, ["source"]);
      const claim = { job: "first", volume: uid, name: "remote", metadata: {}, sizeBytes, claimant: "somebody" };
      const { term } = await peer.claim({ ...claim, nonce: "0".repeat(32), offeredEpoch: 0 });
      await peer.abort({ volume: uid, term }, { discard: true });
      const [arrived] = (await api.listMigratedVolumes()).items;
      if (arrived === undefined) throw new Error("the claim made no migrated volume");
      return arrived.name;
    },
    async freeze() {
      round++;
      await source.engine.api.putSnapshot("remote", `s${round}`);
      const reached = commits.hold();
      await source.engine.api.putJob(`round-${round}`, { volume: "remote", location: "tested", snapshot: `s${round}` });
      await reached;
    },
    async commit() {
      commits.release();
      await finished(source.engine.api, `round-${round}`);
    },
    write: (volume, offset, length) =>
      onImage(api, volume, (image) => image.write(Buffer.alloc(length, 1 + (writes++ % 255)), 0, length, offset)),
    discard: (volume, offset, length) => onImage(api, volume, (image) => punchHole(image.fd, offset, length)),
    async attach(volume) {
      const image = await open((await api.getVolume(volume)).path, "r+");
      return () => image.close();
    },
    async outwaitClones() {
      // The wall clock tells how long ago a clone was served; what waits by the other clock is not concerned.
      aheadMs += defaultLimits.cloneWaitMs + 1_000;
    },
    async close() {
      commits.release();
      await clusters.close();
    },
  };
}

/** Jobs claim a term of `target` only once their name is in the set; until then it does not answer them. */
function holdClaims(target: Cluster): Set<string> {
  const mayRun = new Set<string>();
  target.onCall = (method, [claim]) => {
    if (method !== "claim" && method !== "claimGroup") return;
    const { job } = claim as { job: string };
    if (mayRun.has(job)) return;
    throw new LongshoreError("Unreachable", "the target does not answer yet");
  };
  return mayRun;
}

/** Holds up the next commit at `tested`; `hold` resolves when it is asked for. */
function holdCommits(tested: Cluster) {
  let gate = Promise.withResolvers<void>();
  let reached = Promise.withResolvers<void>();
  gate.resolve();
  tested.onCall = (method) => {
    if (method !== "commit") return;
    reached.resolve();
    return gate.promise;
  };
  return {
    hold(): Promise<void> {
      gate = Promise.withResolvers();
      reached = Promise.withResolvers();
      return reached.promise;
    },
    release: () => gate.resolve(),
  };
}

/** As an application does it that has the volume attached. */
async function onImage(
  api: AgentApi,
  volume: string,
  work: (image: Awaited<ReturnType<typeof open>>) => Promise<unknown>,
): Promise<void> {
  const image = await open((await api.getVolume(volume)).path, "r+");
  try {
    await work(image);
  } finally {
    await image.close();
  }
}

async function finished(api: AgentApi, job: string): Promise<void> {
  let state = "";
  for await (const view of api.followJob(job, new AbortController().signal))
    state = `${view.state} ${view.error?.detail ?? ""}`;
  if (state.trim() !== "Succeeded") throw new Error(`job ${job} ended as ${state}`);
}
