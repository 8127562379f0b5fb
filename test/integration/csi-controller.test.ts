// The CSI driver's controller over a real socket with whole engines behind it: what a sidecar asks for happens to real images.
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import type {
  ControllerGetCapabilitiesResponse,
  CreateSnapshotResponse,
  CreateVolumeGroupSnapshotResponse,
  CreateVolumeResponse,
  ListSnapshotsResponse,
  ListVolumesResponse,
  SnapshotMetadataResponse,
} from "../../src/csi/csi-messages.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type CsiDriver, openCsiDriver } from "../fakes/csi-driver.ts";
import { block, createVolumeRequest, fromSnapshot, fromVolume, onNodes, range } from "../fakes/csi-requests.ts";
import { type Cluster, type Clusters, openClusters } from "../fakes/engines.ts";
import {
  changeVolume,
  ended,
  makeVolume,
  migrate,
  openWorld,
  patienceMs,
  reaches,
  requireCopy,
  snapshot,
  start,
  volumeBytes,
  type World,
  write,
} from "../fakes/migration-world.ts";

const mebibyte = 2 ** 20;
const blockBytes = 4096;

let driver: CsiDriver;

async function createVolume(name: string, fields: object = {}) {
  const request = createVolumeRequest({ name, capacityRange: range(mebibyte), volumeCapabilities: [block], ...fields });
  return (await driver.controller.call<CreateVolumeResponse>("CreateVolume", request)).volume;
}

async function createSnapshot(name: string, sourceVolumeId: string) {
  const request = { name, sourceVolumeId };
  return (await driver.controller.call<CreateSnapshotResponse>("CreateSnapshot", request)).snapshot;
}

describe("a storage cluster of three agents", () => {
  let clusters: Clusters;
  let agents: [Cluster, Cluster, Cluster];

  beforeEach(async () => {
    clusters = await openClusters({ west: 3 }, { inMemory: true, limits: { reserveBytes: blockBytes } });
    agents = clusters.of("west") as unknown as typeof agents;
    for (const { engine } of agents) {
      while ((await engine.api.describe()).members.length < 3) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    driver = await openCsiDriver(agents);
  });

  afterEach(async () => {
    await driver.close();
    await clusters.close();
  });

  async function agentOf(volume: string): Promise<Cluster> {
    for (const agent of agents) {
      const { items } = await agent.engine.api.listVolumes();
      if (items.some(({ name }) => name === volume)) return agent;
    }
    throw new Error(`no agent has ${volume}`);
  }

  /** What a volume holds, by its image. */
  async function bytesOf(volume: string): Promise<Buffer> {
    const { path } = await (await agentOf(volume)).engine.api.getVolume(volume);
    return readFile(path);
  }

  test("the driver is ready, and says what it can do", async () => {
    expect(await driver.identity.call("Probe")).toEqual({ ready: { value: true } });
    expect(await driver.identity.call("GetPluginInfo")).toMatchObject({ name: "csi.longshore.dev" });
    const { capabilities } =
      await driver.controller.call<ControllerGetCapabilitiesResponse>("ControllerGetCapabilities");
    expect(capabilities.map(({ rpc }) => rpc.type)).toContain("CREATE_DELETE_VOLUME");
    for (const method of ["ListVolumes", "GetCapacity", "ListSnapshots"]) {
      const failed = await driver.controller.call(method).catch((error: { code: number }) => error.code);
      expect(failed).not.toBe(status.UNIMPLEMENTED);
    }
  });

  test("a volume lives through all that Kubernetes does with it", async () => {
    const made = await createVolume("pvc-1", { accessibilityRequirements: onNodes(["node-west-2"]) });
    expect(made).toMatchObject({
      volumeId: "pvc-1",
      capacityBytes: mebibyte,
      contentSource: null,
      accessibleTopology: [{ segments: { "longshore.dev/node": "node-west-2" } }],
    });
    expect(await createVolume("pvc-1")).toEqual(made);
    const before = randomBytes(blockBytes);
    await write(agents[1], "pvc-1", 0, before);
    const taken = await createSnapshot("snapshot-1", "pvc-1");
    expect(taken).toMatchObject({ snapshotId: "pvc-1/snapshot-1", sizeBytes: mebibyte, readyToUse: true });
    await write(agents[1], "pvc-1", 0, randomBytes(blockBytes));

    const restored = await createVolume("pvc-2", { volumeContentSource: fromSnapshot(taken.snapshotId) });
    expect(restored.contentSource).toMatchObject({ snapshot: { snapshotId: taken.snapshotId } });
    expect((await bytesOf("pvc-2")).subarray(0, blockBytes)).toEqual(before);
    await createVolume("pvc-3", { volumeContentSource: fromVolume("pvc-1"), capacityRange: range(2 * mebibyte) });
    const copied = await bytesOf("pvc-3");
    expect(copied.length).toBe(2 * mebibyte);
    expect(copied.subarray(0, mebibyte)).toEqual(await bytesOf("pvc-1"));

    const expansion = { volumeId: "pvc-1", capacityRange: range(3 * mebibyte) };
    const grown = await driver.controller.call("ControllerExpandVolume", expansion);
    expect(grown).toEqual({ capacityBytes: 3 * mebibyte, nodeExpansionRequired: true });
    const { entries } = await driver.controller.call<ListVolumesResponse>("ListVolumes");
    expect(entries.map(({ volume }) => [volume.volumeId, volume.capacityBytes / mebibyte])).toEqual([
      ["pvc-1", 3],
      ["pvc-2", 1],
      ["pvc-3", 2],
    ]);

    const refused = driver.controller.call("DeleteVolume", { volumeId: "pvc-1" });
    await expect(refused).rejects.toMatchObject({ code: status.FAILED_PRECONDITION });
    for (const _ of [1, 2]) {
      await driver.controller.call("DeleteSnapshot", { snapshotId: taken.snapshotId });
      for (const volumeId of ["pvc-1", "pvc-2", "pvc-3"]) await driver.controller.call("DeleteVolume", { volumeId });
    }
    expect(await driver.controller.call("ListVolumes")).toEqual({ entries: [], nextToken: "" });
  });

  test("snapshots that schedules took can be restored from, and cannot be deleted", async () => {
    const name = "auto-20260301t120000.000z";
    await createVolume("pvc-1");
    const { engine } = await agentOf("pvc-1");
    await engine.api.putSnapshot("pvc-1", name);
    const snapshotId = `pvc-1/${name}`;
    const { entries } = await driver.controller.call<ListSnapshotsResponse>("ListSnapshots", { snapshotId });
    expect(entries.map((entry) => entry.snapshot.readyToUse)).toEqual([true]);
    await createVolume("pvc-2", { volumeContentSource: fromSnapshot(snapshotId) });
    const deleted = driver.controller.call("DeleteSnapshot", { snapshotId });
    await expect(deleted).rejects.toMatchObject({ code: status.FAILED_PRECONDITION });
    expect((await engine.api.getVolume("pvc-1")).snapshots).toHaveLength(1);
  });

  test("volumes of several nodes are snapshotted at one moment, and the snapshots go together", async () => {
    await createVolume("pvc-1", { accessibilityRequirements: onNodes(["node-west-1"]) });
    await createVolume("pvc-2", { accessibilityRequirements: onNodes(["node-west-3"]) });
    const request = { name: "groupsnapshot-1", sourceVolumeIds: ["pvc-1", "pvc-2"] };
    const create = () =>
      driver.groupController.call<CreateVolumeGroupSnapshotResponse>("CreateVolumeGroupSnapshot", request);
    const { groupSnapshot } = await create();
    expect(groupSnapshot.snapshots.map(({ snapshotId }) => snapshotId)).toEqual([
      "pvc-1/groupsnapshot-1",
      "pvc-2/groupsnapshot-1",
    ]);
    expect((await create()).groupSnapshot).toEqual(groupSnapshot);
    const source = fromSnapshot("pvc-2/groupsnapshot-1");
    expect((await createVolume("pvc-3", { volumeContentSource: source })).volumeId).toBe("pvc-3");
    const alone = driver.controller.call("DeleteSnapshot", { snapshotId: "pvc-1/groupsnapshot-1" });
    await expect(alone).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
    const { groupSnapshotId } = groupSnapshot;
    await driver.groupController.call("DeleteVolumeGroupSnapshot", { groupSnapshotId });
    const gone = driver.groupController.call("GetVolumeGroupSnapshot", { groupSnapshotId });
    await expect(gone).rejects.toMatchObject({ code: status.NOT_FOUND });
    expect(await driver.controller.call("ListSnapshots")).toEqual({ entries: [], nextToken: "" });
  });

  test("backup tools are told which blocks a snapshot has, and which have changed", async () => {
    await createVolume("pvc-1");
    const agent = await agentOf("pvc-1");
    for (const at of [0, 10, 20]) await write(agent, "pvc-1", at * blockBytes, randomBytes(blockBytes));
    await createSnapshot("s1", "pvc-1");
    for (const at of [10, 30]) await write(agent, "pvc-1", at * blockBytes, randomBytes(blockBytes));
    await createSnapshot("s2", "pvc-1");
    const blocks = async (method: string, request: object) => {
      const found: number[] = [];
      for await (const answer of driver.snapshotMetadata.stream<SnapshotMetadataResponse>(method, request)) {
        expect(answer).toMatchObject({ blockMetadataType: "VARIABLE_LENGTH", volumeCapacityBytes: mebibyte });
        for (const { byteOffset, sizeBytes } of answer.blockMetadata) {
          for (let at = byteOffset; at < byteOffset + sizeBytes; at += blockBytes) found.push(at / blockBytes);
        }
      }
      return found;
    };
    const allocated = await blocks("GetMetadataAllocated", { snapshotId: "pvc-1/s1" });
    expect(allocated).toEqual(expect.arrayContaining([0, 10, 20]));
    const pair = { baseSnapshotId: "pvc-1/s1", targetSnapshotId: "pvc-1/s2" };
    expect(await blocks("GetMetadataDelta", pair)).toEqual(expect.arrayContaining([10, 30]));
    expect(await blocks("GetMetadataDelta", { ...pair, startingOffset: 11 * blockBytes, maxResults: 1 })).toEqual(
      expect.not.arrayContaining([10]),
    );
  });

  test.each([
    [{ parameters: { type: "ssd" } }, status.INVALID_ARGUMENT, "parameter type"],
    [{ accessibilityRequirements: onNodes(["node-east-1"]) }, status.RESOURCE_EXHAUSTED, "node-east-1"],
    [{ volumeContentSource: fromSnapshot("pvc-9/s1") }, status.NOT_FOUND, "pvc-9"],
    [{ capacityRange: range(2 ** 51) }, status.OUT_OF_RANGE, "more than"],
  ])("a volume of %j is refused with %i, and nothing is left", async (fields: object, code, message) => {
    await expect(createVolume("pvc-1", fields)).rejects.toMatchObject({
      code,
      details: expect.stringContaining(message),
    });
    expect(await driver.controller.call("ListVolumes")).toEqual({ entries: [], nextToken: "" });
  });

  test("a volume is made where there is room, and is RESOURCE_EXHAUSTED when there is none", async () => {
    const all = ["node-west-1", "node-west-2", "node-west-3"];
    const accessibilityRequirements = onNodes(all, ["node-west-1"]);
    agents[0].freeBytes = 0;
    await createVolume("pvc-1", { accessibilityRequirements });
    expect((await agentOf("pvc-1")).name).not.toBe("west-1");
    for (const agent of agents) agent.freeBytes = 0;
    const refused = createVolume("pvc-2", { accessibilityRequirements });
    await expect(refused).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    for (const agent of agents) agent.freeBytes = undefined;
    await createVolume("pvc-2", { accessibilityRequirements });
    expect((await agentOf("pvc-2")).name).toBe("west-1");
  });
});

describe("an empty volume, while one of three agents is away", () => {
  let clusters: Clusters;
  let agents: [Cluster, Cluster, Cluster];
  /** The driver's process after a change of the leader. */
  let other: CsiDriver;

  beforeEach(async () => {
    clusters = await openClusters({ west: 3 }, { inMemory: true, isOneName: true });
    agents = clusters.of("west") as unknown as typeof agents;
    driver = await openCsiDriver(agents);
    other = await openCsiDriver(agents);
    await agreed();
  });

  afterEach(async () => {
    await driver.close();
    await other.close();
    await clusters.close();
  });

  const onFirst = { accessibilityRequirements: onNodes(["node-west-1"]) };

  /** Until any two of the agents can speak for the third. */
  async function agreed(): Promise<void> {
    const deadlineMs = performance.now() + patienceMs;
    for (const agent of agents) {
      const { agentId } = agent.engine;
      const knowOf = async (one: Cluster) => {
        const claim = { agentId: "00000000-0000-4000-8000-00000000000f", name: "probe", uid: "probe" };
        return one === agent || (await one.engine.member.claimName(claim)).knows.includes(agentId);
      };
      while (!(await Promise.all(agents.map(knowOf))).every(Boolean)) {
        if (performance.now() > deadlineMs) throw new Error(`not all know the names of ${agent.name}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  }

  /** As csi-provisioner asks: until it is there, whatever fails for the moment. */
  async function provisioned(by: CsiDriver, name: string, fields: object = {}): Promise<string> {
    const deadlineMs = performance.now() + patienceMs;
    for (;;) {
      try {
        await createAt(by, name, fields);
        return await holdersOf(name);
      } catch (error) {
        if (performance.now() > deadlineMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  function createAt(by: CsiDriver, name: string, fields: object = {}) {
    const request = createVolumeRequest({
      name,
      capacityRange: range(mebibyte),
      volumeCapabilities: [block],
      ...fields,
    });
    return by.controller.call<CreateVolumeResponse>("CreateVolume", request);
  }

  /** The agents that have a volume of this name, of those that run. */
  async function holdersOf(name: string): Promise<string> {
    const running = agents.filter(({ stopping }) => !stopping.aborted);
    const lists = await Promise.all(running.map(async (agent) => (await agent.engine.api.listVolumes()).items));
    return running
      .filter((_, index) => lists[index]?.some((volume) => volume.name === name))
      .map(({ name: at }) => at)
      .join(" ");
  }

  /** Images of volumes, of all agents together. */
  async function imagesLeft(): Promise<number> {
    const images = await Promise.all(agents.map(({ storage }) => storage.list()));
    return images.flat().length;
  }

  test("is made on the others, and the one that was away makes them as well when it is back", async () => {
    await agents[2].stop();
    expect(await provisioned(driver, "pvc-1")).toMatch(/^west-[12]$/);
    await agents[2].start();
    await agents[0].stop();
    expect(await provisioned(driver, "pvc-2", { accessibilityRequirements: onNodes(["node-west-3"]) })).toBe("west-3");
  });

  test("is made elsewhere when its agent died in the middle of making it, and what that one has left is gone", async () => {
    const [first] = agents;
    const isMade = Promise.withResolvers<void>();
    const death = Promise.withResolvers<void>();
    first.onStorage = (step, when) => {
      if (step !== "create" || when !== "after") return undefined;
      isMade.resolve();
      return death.promise;
    };
    const lost = createAt(driver, "pvc-1", onFirst).catch((error: unknown) => error);
    await isMade.promise;
    await first.stop();
    const holder = await provisioned(other, "pvc-1");
    expect(holder).toMatch(/^west-[23]$/);
    death.reject(new Error("killed"));
    expect(await lost).toBeInstanceOf(Error);
    first.onStorage = () => undefined;
    await first.start();
    expect(await provisioned(driver, "pvc-1")).toBe(holder);
    expect(await imagesLeft()).toBe(1);
    await other.controller.call("DeleteVolume", { volumeId: "pvc-1" });
    expect([await holdersOf("pvc-1"), await imagesLeft()]).toEqual(["", 0]);
  });

  test("waits for its agent when that died after it had made it, and before anybody was told", async () => {
    await agents[0].engine.api.putVolume("pvc-1", { sizeBytes: mebibyte });
    await agents[0].stop();
    for (const fields of [{}, { accessibilityRequirements: onNodes(["node-west-2"]) }]) {
      await expect(createAt(other, "pvc-1", fields)).rejects.toMatchObject({
        code: status.UNAVAILABLE,
        details: expect.stringContaining(`agent ${agents[0].engine.agentId} has a volume pvc-1`),
      });
    }
    expect(await holdersOf("pvc-1")).toBe("");
    await agents[0].start();
    expect(await provisioned(other, "pvc-1")).toBe("west-1");
    await other.controller.call("DeleteVolume", { volumeId: "pvc-1" });
    expect(await imagesLeft()).toBe(0);
  });

  test("is not made a second time where the driver does not reach the agent that has it, and the others do", async () => {
    await createAt(driver, "pvc-1", onFirst);
    other.away.add(agents[0]);
    await expect(createAt(other, "pvc-1")).rejects.toMatchObject({ code: status.ABORTED });
    expect(await provisioned(other, "pvc-2")).toMatch(/^west-[23]$/);
    expect(await holdersOf("pvc-1")).toBe("west-1");
  });

  test("is made once by two drivers that reach one agent each that the other does not, on agents that are cut off from each other", async () => {
    const [one, two] = agents;
    clusters.cut(one, two);
    clusters.cut(two, one);
    driver.away.add(two);
    other.away.add(one);
    for (let round = 0; round < 10; round++) {
      const name = `pvc-${round}`;
      await Promise.allSettled([
        createAt(driver, name, onFirst),
        createAt(other, name, { accessibilityRequirements: onNodes(["node-west-2"]) }),
      ]);
      expect(await holdersOf(name)).toMatch(/^(?:west-[12])?$/);
    }
    clusters.heal();
    for (const by of [driver, other]) by.away.clear();
    for (let round = 0; round < 10; round++) expect(await provisioned(driver, `pvc-${round}`)).toMatch(/^west-[123]$/);
    expect(await imagesLeft()).toBe(10);
  });

  test("is made without waiting for one whose node came back without its data, and again once that one is forgotten", async () => {
    const [first] = agents;
    const { agentId } = first.engine;
    await createAt(driver, "pvc-1", onFirst);
    await first.stop();
    await rm(first.folder, { recursive: true });
    await mkdir(first.folder);
    await first.start();
    expect(await provisioned(other, "pvc-2", onFirst)).toBe("west-1");
    await expect(createAt(other, "pvc-1", onFirst)).rejects.toMatchObject({ code: status.UNAVAILABLE });
    const seenAs = async () => (await agents[1].engine.api.describe()).members.find((one) => one.agentId === agentId);
    while ((await seenAs())?.state !== "lost") await new Promise((resolve) => setTimeout(resolve, 5));
    await agents[1].engine.api.forgetMember(agentId);
    expect(await provisioned(other, "pvc-1", onFirst)).toBe("west-1");
  });

  test("waits while two are away, and a name that was asked for meanwhile is bound to nobody", async () => {
    await agents[1].stop();
    await agents[2].stop();
    await expect(createAt(driver, "pvc-1")).rejects.toMatchObject({ code: status.UNAVAILABLE });
    expect(await imagesLeft()).toBe(0);
    await agents[1].start();
    await agents[2].start();
    await agents[0].stop();
    expect(await provisioned(driver, "pvc-1")).toMatch(/^west-[23]$/);
  });

  test("waits when the others are of an earlier version, which cannot speak for the one that is away", async () => {
    const [first, second, third] = agents;
    third.onMemberCall = (method) => {
      if (method === "claimName" || method === "volumeNames")
        throw new LongshoreError("NotFound", "there is no such route");
    };
    await createAt(driver, "pvc-1", onFirst);
    await second.stop();
    await expect(createAt(driver, "pvc-2", onFirst)).rejects.toMatchObject({ code: status.UNAVAILABLE });
    await second.start();
    // What an agent of an earlier version has, nobody else makes.
    await third.engine.api.putVolume("pvc-3", { sizeBytes: mebibyte, from: { volume: await sourceAt(third) } });
    await expect(first.engine.api.putVolume("pvc-3", { sizeBytes: mebibyte })).rejects.toMatchObject({
      code: "Conflict",
    });
  });

  async function sourceAt(agent: Cluster): Promise<string> {
    await agent.engine.api.putVolume("pvc-0", { sizeBytes: mebibyte });
    return "pvc-0";
  }
});

describe("one agent", () => {
  test("makes a hundred volumes that are asked for at once", async () => {
    const clusters = await openClusters(["west"], { inMemory: true });
    driver = await openCsiDriver(clusters.all as unknown as [Cluster]);
    try {
      const names = Array.from({ length: 100 }, (_, index) => `pvc-${index}`);
      const made = await Promise.all(names.map((name) => createVolume(name)));
      expect(made.map(({ volumeId }) => volumeId)).toEqual(names);
      const { entries } = await driver.controller.call<ListVolumesResponse>("ListVolumes");
      expect(entries.map(({ volume }) => volume.volumeId)).toEqual([...names].sort());
    } finally {
      await driver.close();
      await clusters.close();
    }
  }, 60_000);
});

describe("a migrated volume", () => {
  let world: World;
  let volumeContentSource: ReturnType<typeof fromSnapshot>;
  let gate: PromiseWithResolvers<void>;

  beforeEach(async () => {
    gate = Promise.withResolvers<void>();
    world = await openWorld();
    await makeVolume(world, "data");
    await migrate(world, "data", "s1");
    volumeContentSource = fromSnapshot(`${(await requireCopy(world, "data")).name}@latest`);
    driver = await openCsiDriver([world.target]);
  });

  afterEach(async () => {
    gate.resolve();
    await driver.close();
    await world.clusters.close();
  });

  /** A job that is frozen, and stays so until the gate is opened. */
  async function frozen(name: string): Promise<string> {
    world.target.onCall = async (method) => {
      if (method === "commit") await gate.promise;
    };
    await changeVolume(world, "data");
    await snapshot(world, "data", name);
    const job = await start(world, "data", name);
    await reaches(world.source, job, ({ barrier }) => barrier === "Stored");
    return job;
  }

  const clone = (name: string) => createVolume(name, { volumeContentSource, capacityRange: null });

  async function content(name: string): Promise<Buffer> {
    return readFile((await world.target.engine.api.getVolume(name)).path);
  }

  test("is cloned at its newest point", async () => {
    expect(await clone("pvc-1")).toMatchObject({ volumeId: "pvc-1", capacityBytes: volumeBytes });
    const { lineage } = await world.target.engine.api.getVolume("pvc-1");
    expect(await content("pvc-1")).toEqual(world.truth.get(String(lineage?.pointId)));
  });

  test("that is frozen makes clones wait, with the progress, and serves them with what it brought", async () => {
    const job = await frozen("s2");
    for (const _ of [1, 2]) {
      await expect(clone("pvc-1")).rejects.toMatchObject({
        code: status.ABORTED,
        details: expect.stringMatching(/clone pvc-1 waits since .* is frozen while job .* of .* stored, 100 %, since/),
      });
    }
    gate.resolve();
    const { to } = await ended(world.source, job);
    await expect(clone("pvc-1")).resolves.toMatchObject({ volumeId: "pvc-1" });
    expect(await content("pvc-1")).toEqual(world.truth.get(String(to?.pointId)));
  });

  test("leaves no clone of a claim that was deleted while it waited", async () => {
    const job = await frozen("s2");
    await expect(clone("pvc-1")).rejects.toMatchObject({ code: status.ABORTED });
    await driver.controller.call("DeleteVolume", { volumeId: "pvc-1" });
    gate.resolve();
    await ended(world.source, job);
    expect((await world.target.engine.api.listClones()).items).toEqual([]);
    expect((await world.target.engine.api.listVolumes()).items).toEqual([]);
  });

  test("is listed, and keeps its points whoever deletes what shows them", async () => {
    const { snapshotId } = volumeContentSource.snapshot ?? { snapshotId: "" };
    const { entries } = await driver.controller.call<ListSnapshotsResponse>("ListSnapshots", { snapshotId });
    expect(entries).toMatchObject([{ snapshot: { readyToUse: true, sizeBytes: volumeBytes } }]);
    const deleted = driver.controller.call("DeleteSnapshot", { snapshotId });
    await expect(deleted).rejects.toMatchObject({ code: status.FAILED_PRECONDITION });
    expect((await requireCopy(world, "data")).points).toHaveLength(1);
  });
});
