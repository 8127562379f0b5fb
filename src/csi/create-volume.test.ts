import { beforeEach, describe, expect, test } from "@jest/globals";
import {
  block,
  createVolumeRequest,
  fromSnapshot,
  fromVolume,
  mounted,
  mountedAs,
  onNodes,
  range,
} from "../../test/fakes/csi-requests.ts";
import type { FakeAgent } from "../../test/fakes/fake-agent.ts";
import { type FakeStorageCluster, fakeStorageCluster } from "../../test/fakes/fake-storage-cluster.ts";
import { LongshoreError } from "../domain/errors.ts";
import { createVolume, readWish } from "./create-volume.ts";
import type { CreateVolumeRequest } from "./csi-messages.ts";

const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;
const never = new AbortController().signal;

let cluster: FakeStorageCluster;
let agents: readonly [FakeAgent, FakeAgent, FakeAgent];

beforeEach(() => {
  cluster = fakeStorageCluster(3);
  agents = cluster.agents as typeof agents;
});

function create(fields: Partial<CreateVolumeRequest> = {}) {
  return createVolume(cluster.api, readWish(createVolumeRequest(fields)), never);
}

/** The nodes that have a volume of this name. */
const nodesOf = (name: string) => agents.filter((agent) => agent.volumes.has(name)).map(({ view }) => view.node);

describe("an empty volume", () => {
  test("is made with the size asked for, and says whose it is", async () => {
    const parameters = { "csi.storage.k8s.io/pvc/namespace": "shop", "csi.storage.k8s.io/pvc/name": "db" };
    const made = await create({ capacityRange: range(9 * mebibyte), parameters });
    expect(made).toMatchObject({
      name: "pvc-1",
      sizeBytes: 9 * mebibyte,
      metadata: { "pvc.namespace": "shop", "pvc.name": "db", volumeMode: "Filesystem", fsType: "ext4" },
    });
  });

  test("is made on the node that is preferred, else where most room is", async () => {
    agents[2].view.freeBytes = 2 ** 41;
    await create();
    await create({ name: "pvc-2", accessibilityRequirements: onNodes(["node-1", "node-2"], ["node-2"]) });
    expect([nodesOf("pvc-1"), nodesOf("pvc-2")]).toEqual([["node-3"], ["node-2"]]);
  });

  test("is the same volume when it is asked for again, wherever that would be made by now", async () => {
    const first = await create({ capacityRange: range(16 * mebibyte) });
    agents[1].view.freeBytes = 2 ** 42;
    expect(await create({ capacityRange: range(16 * mebibyte) })).toEqual(first);
    expect(await create({ capacityRange: range(1, 64 * mebibyte) })).toEqual(first);
    expect(nodesOf("pvc-1")).toHaveLength(1);
  });

  test.each<[string, Partial<CreateVolumeRequest>]>([
    ["larger", { capacityRange: range(2 * gibibyte) }],
    ["smaller", { capacityRange: range(1, 64 * mebibyte) }],
    ["a block device", { volumeCapabilities: [block] }],
    ["an XFS", { volumeCapabilities: [mountedAs("xfs")] }],
    ["on another node", { accessibilityRequirements: onNodes(["node-2"]) }],
    ["made of another one", { volumeContentSource: fromVolume("pvc-0") }],
  ])("of the same name that is to be %s is another volume", async (_, fields) => {
    await create({ name: "pvc-0" });
    const first = await create({ accessibilityRequirements: onNodes(["node-1"]) });
    await expect(create(fields)).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    expect(await cluster.api.getVolume("pvc-1")).toEqual(first);
  });

  test("goes to the next node when one is full, and is refused when all are, with nothing left", async () => {
    const full = new LongshoreError("DiskFull", "no room");
    agents[0].putVolume = () => Promise.reject(full);
    await create({ accessibilityRequirements: onNodes(["node-1", "node-2"], ["node-1"]) });
    expect(nodesOf("pvc-1")).toEqual(["node-2"]);
    for (const agent of agents) agent.putVolume = () => Promise.reject(full);
    await expect(create({ name: "pvc-2" })).rejects.toMatchObject({ code: "DiskFull" });
    expect(nodesOf("pvc-2")).toEqual([]);
  });

  test("is not made anywhere else when an agent fails in another way: it may have made it", async () => {
    agents[0].putVolume = () => Promise.reject(new LongshoreError("Timeout", "no answer"));
    const accessibilityRequirements = onNodes(["node-1", "node-2"], ["node-1"]);
    await expect(create({ accessibilityRequirements })).rejects.toMatchObject({ code: "Timeout" });
    expect(nodesOf("pvc-1")).toEqual([]);
  });

  test("waits for the agent of the only node that fits", async () => {
    cluster.silent.add(agents[1]);
    const accessibilityRequirements = onNodes(["node-2"]);
    const message = expect.stringContaining(
      "node-2, which does not answer; bring it back or, if it will not come back",
    );
    await expect(create({ accessibilityRequirements })).rejects.toMatchObject({ code: "Unreachable", message });
    cluster.silent.clear();
    await create({ accessibilityRequirements });
    expect(nodesOf("pvc-1")).toEqual(["node-2"]);
  });

  test("waits while no agent answers at all", async () => {
    for (const agent of agents) cluster.silent.add(agent);
    const message = expect.stringContaining(
      "check the pods in longshore-node, port 7420 and the certificate of role csi",
    );
    await expect(create()).rejects.toMatchObject({ code: "Unreachable", message });
  });

  test("is made while one agent is silent, unless that one has it; what is there is found", async () => {
    const made = await create({ accessibilityRequirements: onNodes(["node-2"]) });
    cluster.silent.add(agents[2]);
    expect(await create()).toEqual(made);
    await create({ name: "pvc-2", accessibilityRequirements: onNodes(["node-1", "node-3"], ["node-3"]) });
    expect(nodesOf("pvc-2")).toEqual(["node-1"]);
    cluster.silent.clear();
    cluster.silent.add(agents[1]);
    await expect(create()).rejects.toMatchObject({ code: "Unreachable" });
    expect(nodesOf("pvc-1")).toEqual(["node-2"]);
    cluster.silent.clear();
    expect(await create()).toEqual(made);
  });

  test("waits while more than one agent is silent, for each of them may have it", async () => {
    for (const agent of [agents[0], agents[2]]) cluster.silent.add(agent);
    await expect(create()).rejects.toMatchObject({ code: "Unreachable" });
    expect(nodesOf("pvc-1")).toEqual([]);
    cluster.silent.delete(agents[0]);
    await create();
    expect(nodesOf("pvc-1")).toHaveLength(1);
  });

  test("where no node that fits has an agent is refused", async () => {
    const accessibilityRequirements = onNodes(["node-9"]);
    const message = expect.stringMatching(/node-9.*; label a node longshore\.dev\/storage=true/);
    await expect(create({ accessibilityRequirements })).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED", message });
  });
});

describe("a clone of a volume or snapshot of this cluster", () => {
  beforeEach(async () => {
    await agents[1].putVolume("pvc-0", { sizeBytes: 4 * mebibyte, metadata: { fsType: "xfs" } });
    await agents[1].putSnapshot("pvc-0", "snapshot-1");
    await agents[1].putVolume("pvc-0", { sizeBytes: 8 * mebibyte });
  });

  test("lies where its source does, is as large, and has its file system", async () => {
    const made = await create({ volumeContentSource: fromSnapshot("pvc-0/snapshot-1") });
    expect(made).toMatchObject({
      sizeBytes: 4 * mebibyte,
      from: { volume: "pvc-0", snapshot: "snapshot-1" },
      metadata: { fsType: "xfs" },
    });
    expect((await create({ name: "pvc-2", volumeContentSource: fromVolume("pvc-0") })).sizeBytes).toBe(8 * mebibyte);
    expect([nodesOf("pvc-1"), nodesOf("pvc-2")]).toEqual([["node-2"], ["node-2"]]);
  });

  test("is refused when the class names another file system than its source has, and is made when it names that", async () => {
    const of = { volumeContentSource: fromSnapshot("pvc-0/snapshot-1") };
    await expect(create({ ...of, volumeCapabilities: [mountedAs("ext4")] })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringMatching(
        /volume pvc-0, .* is xfs; use a StorageClass whose csi\.storage\.k8s\.io\/fstype is xfs/,
      ),
    });
    expect(nodesOf("pvc-1")).toEqual([]);
    const made = await create({ ...of, volumeCapabilities: [mountedAs("xfs")] });
    expect(made.metadata.fsType).toBe("xfs");
  });

  test("has the file system that the class names when that of its source is not known", async () => {
    await agents[1].putVolume("pvc-raw", { sizeBytes: mebibyte, metadata: { volumeMode: "Block" } });
    const of = { volumeContentSource: fromVolume("pvc-raw") };
    expect((await create({ ...of, volumeCapabilities: [mountedAs("btrfs")] })).metadata.fsType).toBe("btrfs");
    const raw = await create({ name: "pvc-2", volumeContentSource: fromVolume("pvc-0"), volumeCapabilities: [block] });
    expect(raw.metadata).toEqual({ volumeMode: "Block" });
  });

  test("may be larger, and not smaller", async () => {
    const volumeContentSource = fromSnapshot("pvc-0/snapshot-1");
    const made = await create({ volumeContentSource, capacityRange: range(16 * mebibyte) });
    expect(made.sizeBytes).toBe(16 * mebibyte);
    const tooSmall = create({ name: "pvc-2", volumeContentSource, capacityRange: range(1, mebibyte) });
    await expect(tooSmall).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
    expect(nodesOf("pvc-2")).toEqual([]);
  });

  test("is the same when it is asked for again, also when its source is gone", async () => {
    const volumeContentSource = fromSnapshot("pvc-0/snapshot-1");
    const made = await create({ volumeContentSource });
    await agents[1].removeVolume("pvc-0");
    expect(await create({ volumeContentSource })).toEqual(made);
    await expect(create()).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
      message: expect.stringContaining("made of something else; a claim that is made anew gets another name"),
    });
    await expect(create({ volumeContentSource: fromVolume("pvc-0") })).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
    });
  });

  test("is made while the agents of other nodes do not answer, and waits for that of its source", async () => {
    cluster.silent.add(agents[0]);
    await create({ volumeContentSource: fromVolume("pvc-0") });
    cluster.silent.clear();
    cluster.silent.add(agents[1]);
    const waiting = create({ name: "pvc-2", volumeContentSource: fromVolume("pvc-0") });
    await expect(waiting).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("is refused on other nodes than that of its source", async () => {
    const accessibilityRequirements = onNodes(["node-1"]);
    const made = create({ volumeContentSource: fromVolume("pvc-0"), accessibilityRequirements });
    await expect(made).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      message: expect.stringMatching(/pvc-0 lies on node node-2, .*; let the pod go there, or take a class/),
    });
  });

  test.each([
    fromVolume("pvc-9"),
    fromVolume("Not A Handle"),
    fromSnapshot("pvc-0/snapshot-9"),
    fromSnapshot("pvc-9/snapshot-1"),
    fromSnapshot("not a handle"),
    fromSnapshot("east.pvc-9@latest"),
  ])("of %j, which does not exist, is NOT_FOUND", async (volumeContentSource) => {
    const code = expect.stringMatching(/^(?:NOT_FOUND|NotFound)$/);
    await expect(async () => create({ volumeContentSource })).rejects.toMatchObject({ code });
    expect(nodesOf("pvc-1")).toEqual([]);
  });

  test("of a snapshot that is being deleted is NOT_FOUND", async () => {
    await agents[1].putHold("pvc-0", "snapshot-1", "backup");
    await agents[1].removeSnapshot("pvc-0", "snapshot-1");
    const made = create({ volumeContentSource: fromSnapshot("pvc-0/snapshot-1") });
    await expect(made).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});

describe("a clone of a migrated volume", () => {
  const volumeContentSource = fromSnapshot("east.pvc-9@latest");

  beforeEach(() => {
    agents[2].arrive("east.pvc-9", { source: "east", sizeBytes: 4 * mebibyte, metadata: { fsType: "btrfs" } });
  });

  test("lies on its home, with its size and file system, and is kept", async () => {
    agents[2].commit("east.pvc-9");
    const made = await create({ volumeContentSource });
    expect(made).toMatchObject({ sizeBytes: 4 * mebibyte, metadata: { fsType: "btrfs", volumeMode: "Filesystem" } });
    expect(nodesOf("pvc-1")).toEqual(["node-3"]);
    await agents[2].outwaitClones();
    expect(nodesOf("pvc-1")).toEqual(["node-3"]);
  });

  test("is refused when the class names another file system, at once and without a request that waits", async () => {
    const wrong = create({ volumeContentSource, volumeCapabilities: [mountedAs("ext4")] });
    await expect(wrong).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("fstype is btrfs"),
    });
    expect(agents[2].clones.size).toBe(0);
    agents[2].commit("east.pvc-9");
    expect((await create({ volumeContentSource, volumeCapabilities: [mountedAs("btrfs")] })).metadata.fsType).toBe(
      "btrfs",
    );
  });

  test("waits while the volume is frozen, is told how far it is, and is served by the commit", async () => {
    agents[2].commit("east.pvc-9");
    agents[2].freeze("east.pvc-9", { job: "job-7", bytesTotal: 8 * mebibyte, bytesStored: 2 * mebibyte });
    const waiting = create({ volumeContentSource });
    await expect(waiting).rejects.toMatchObject({
      code: "ABORTED",
      message: expect.stringMatching(/frozen while job job-7 .*2 MiB of 8 MiB stored, 25 %, since 2026-01-01T/),
    });
    await expect(create({ volumeContentSource })).rejects.toMatchObject({ code: "ABORTED" });
    const { pointId } = agents[2].commit("east.pvc-9");
    expect((await create({ volumeContentSource })).lineage?.pointId).toBe(pointId);
  });

  test("waits for the first point of a volume that has none", async () => {
    await expect(create({ volumeContentSource })).rejects.toMatchObject({
      code: "ABORTED",
      message: expect.stringContaining("to have a point in time"),
    });
  });

  test("that nobody comes back for leaves nothing", async () => {
    await expect(create({ volumeContentSource })).rejects.toMatchObject({ code: "ABORTED" });
    agents[2].commit("east.pvc-9");
    expect(nodesOf("pvc-1")).toEqual(["node-3"]);
    await agents[2].outwaitClones();
    expect([nodesOf("pvc-1"), agents[2].clones.size]).toEqual([[], 0]);
  });

  test("is of the point that is pinned, the newest one or not, also while a transfer runs", async () => {
    const { pointId } = agents[2].commit("east.pvc-9");
    agents[2].commit("east.pvc-9");
    agents[2].freeze("east.pvc-9");
    const made = await create({ volumeContentSource: fromSnapshot(`east.pvc-9@${pointId}`) });
    expect(made.lineage?.pointId).toBe(pointId);
  });

  test("grows to what is asked for, and is the same when the newest point has moved on", async () => {
    agents[2].commit("east.pvc-9");
    const made = await create({ volumeContentSource, capacityRange: range(16 * mebibyte) });
    expect(made.sizeBytes).toBe(16 * mebibyte);
    agents[2].commit("east.pvc-9");
    expect(await create({ volumeContentSource, capacityRange: range(16 * mebibyte) })).toEqual(made);
    await agents[2].removeMigratedVolume("east.pvc-9");
    expect(await create({ volumeContentSource, capacityRange: range(16 * mebibyte) })).toEqual(made);
  });

  test("that was made and not grown yet is grown when it is asked for again", async () => {
    agents[2].commit("east.pvc-9");
    const capacityRange = range(16 * mebibyte);
    cluster.onEffect = (method, when) => {
      if (method === "putVolume" && when === "before") throw new LongshoreError("StreamTorn", "the controller died");
    };
    await expect(create({ volumeContentSource, capacityRange })).rejects.toMatchObject({ code: "StreamTorn" });
    cluster.onEffect = () => undefined;
    expect((await create({ volumeContentSource, capacityRange })).sizeBytes).toBe(16 * mebibyte);
  });

  test("larger than the limit is refused, known before or only afterwards, and nothing is left", async () => {
    agents[2].commit("east.pvc-9");
    const capacityRange = range(0, 2 * mebibyte);
    await expect(create({ volumeContentSource, capacityRange })).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
    cluster.onEffect = (method, when) => {
      if (method === "putClone" && when === "before") agents[2].commit("east.pvc-9", { sizeBytes: 8 * mebibyte });
    };
    const grown = create({ volumeContentSource, capacityRange: range(0, 4 * mebibyte) });
    await expect(grown).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
    expect([nodesOf("pvc-1"), agents[2].clones.size]).toEqual([[], 0]);
  });

  test("of another point than it was made of is another volume", async () => {
    const { pointId } = agents[2].commit("east.pvc-9");
    await create({ volumeContentSource });
    const pinned = create({ volumeContentSource: fromSnapshot(`east.pvc-9@${pointId}`) });
    await expect(pinned).rejects.toMatchObject({ code: "NameTaken" });
    await expect(create()).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
  });

  test("is made while the agents of other nodes do not answer", async () => {
    agents[2].commit("east.pvc-9");
    cluster.silent.add(agents[0]);
    expect((await create({ volumeContentSource })).home).toBe(agents[2].view.agentId);
  });
});

describe("a request", () => {
  test.each<[string, Partial<CreateVolumeRequest>, string]>([
    ["without a name", { name: "" }, "name is missing"],
    ["without capabilities", { volumeCapabilities: [] }, "volume_capabilities is empty"],
    ["with a parameter that nobody knows", { parameters: { type: "ssd" } }, "parameter type"],
    ["with mutable parameters", { mutableParameters: { iops: "1" } }, "iops"],
    ["with a source that is none", { volumeContentSource: {} }, "volume_content_source"],
    ["with a range that contradicts itself", { capacityRange: range(2, 1) }, "the limit of 1 bytes"],
  ])("%s is refused before anybody is asked", (_, fields, message) => {
    expect(() => readWish(createVolumeRequest(fields))).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringContaining(message) }),
    );
  });

  test("whose caller has gone stops before it changes anything", async () => {
    const gone = AbortSignal.abort(new Error("gone"));
    const wish = readWish(createVolumeRequest({ volumeCapabilities: [mounted] }));
    await expect(createVolume(cluster.api, wish, gone)).rejects.toThrow("gone");
    expect(nodesOf("pvc-1")).toEqual([]);
  });
});

describe("a crash at any effect", () => {
  const sources = {
    "an empty volume": null,
    "a clone of a volume": fromVolume("pvc-0"),
    "a clone of a snapshot": fromSnapshot("pvc-0/snapshot-1"),
    "a clone of a migrated volume": fromSnapshot("east.pvc-9@latest"),
  };

  /** A cluster with something to clone, in which the effect of that number fails, before or after it was carried out. */
  async function crashing(crashAt: number): Promise<FakeStorageCluster> {
    const world = fakeStorageCluster(3);
    const [, second, third] = world.agents as unknown as typeof agents;
    await second.putVolume("pvc-0", { sizeBytes: mebibyte });
    await second.putSnapshot("pvc-0", "snapshot-1");
    third.arrive("east.pvc-9", { source: "east", sizeBytes: mebibyte });
    third.commit("east.pvc-9");
    let count = 0;
    world.onEffect = () => {
      count++;
      if (count === crashAt) throw new LongshoreError("StreamTorn", "the controller died");
    };
    return world;
  }

  test.each(Object.entries(sources))("leaves one volume once it is asked for again: %s", async (_, source) => {
    const capacityRange = range(16 * mebibyte);
    const wish = readWish(createVolumeRequest({ volumeContentSource: source, capacityRange }));
    for (let crashAt = 1; crashAt <= 20; crashAt++) {
      const world = await crashing(crashAt);
      const hasCrashed = await createVolume(world.api, wish, never).then(
        () => false,
        () => true,
      );
      // Once is enough: where the first call had fewer effects, the second one is left alone.
      world.onEffect = () => {};
      const made = await createVolume(world.api, wish, never);
      expect(made).toMatchObject({ name: "pvc-1", sizeBytes: 16 * mebibyte });
      expect(world.agents.filter((agent) => agent.volumes.has("pvc-1"))).toHaveLength(1);
      if (!hasCrashed) return expect(crashAt).toBeGreaterThan(2);
    }
    throw new Error("it has more than 20 effects");
  });
});
