import { beforeEach, describe, expect, test } from "@jest/globals";
import { block, createVolumeRequest, fromSnapshot, mounted, onNodes, range } from "../../test/fakes/csi-requests.ts";
import type { FakeAgent } from "../../test/fakes/fake-agent.ts";
import { type FakeStorageCluster, fakeStorageCluster, listWithout } from "../../test/fakes/fake-storage-cluster.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { VolumeCapability } from "./csi-messages.ts";
import { oneOperationAtATime } from "./one-operation.ts";
import { volumeCalls } from "./volumes.ts";

const mebibyte = 2 ** 20;
const never = new AbortController().signal;

let cluster: FakeStorageCluster;
let first: FakeAgent;
let second: FakeAgent;
let calls: ReturnType<typeof volumeCalls>;
let listVolumes: ClusterApi["listVolumes"];

beforeEach(() => {
  cluster = fakeStorageCluster(2);
  listVolumes = cluster.api.listVolumes;
  [first, second] = cluster.agents as [FakeAgent, FakeAgent];
  calls = volumeCalls({ cluster: cluster.api, listVolumes: () => listVolumes(), oneOperation: oneOperationAtATime() });
});

describe("CreateVolume", () => {
  test("answers with the volume, where it is, and the source as it was asked for", async () => {
    await second.putVolume("pvc-0", { sizeBytes: mebibyte });
    await second.putSnapshot("pvc-0", "s1");
    const volumeContentSource = fromSnapshot("pvc-0/s1");
    expect(await calls.CreateVolume(createVolumeRequest({ volumeContentSource }), never)).toEqual({
      volume: {
        volumeId: "pvc-1",
        capacityBytes: mebibyte,
        volumeContext: {},
        contentSource: volumeContentSource,
        accessibleTopology: [{ segments: { "longshore.dev/node": "node-2" } }],
      },
    });
  });

  test("twice at once for one name is ABORTED for the second, and makes one volume", async () => {
    const both = await Promise.allSettled([
      calls.CreateVolume(createVolumeRequest(), never),
      calls.CreateVolume(createVolumeRequest(), never),
    ]);
    expect(both.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect(both[1]).toMatchObject({ reason: { code: "ABORTED" } });
    expect((await cluster.api.listVolumes()).items).toHaveLength(1);
  });

  test("takes names that agents do not take, and gives the same volume for the same name", async () => {
    const request = createVolumeRequest({ name: "Größe".repeat(20) });
    const made = await calls.CreateVolume(request, never);
    expect(await calls.CreateVolume(request, never)).toEqual(made);
    await calls.DeleteVolume({ volumeId: made.volume.volumeId }, never);
    expect((await cluster.api.listVolumes()).items).toEqual([]);
  });
});

describe("DeleteVolume", () => {
  test("deletes a volume, and succeeds for one that is gone or never was", async () => {
    await calls.CreateVolume(createVolumeRequest(), never);
    for (const volumeId of ["pvc-1", "pvc-1", "pvc-9", "Never A Handle"]) {
      expect(await calls.DeleteVolume({ volumeId }, never)).toEqual({});
    }
    expect((await cluster.api.listVolumes()).items).toEqual([]);
  });

  test("takes the snapshots of schedules and agents along, and leaves a volume with others as it is", async () => {
    await first.putVolume("pvc-1", { sizeBytes: mebibyte });
    for (const name of ["auto-20260301t120000.000z", "clone-3f0a4c1e-9d55-4a39-8b13-0f6f7c1f2a10"]) {
      await first.putSnapshot("pvc-1", name);
    }
    await first.putSnapshot("pvc-1", "snapshot-1");
    await expect(calls.DeleteVolume({ volumeId: "pvc-1" }, never)).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringMatching(/delete them first: snapshot-1$/),
    });
    await first.removeSnapshot("pvc-1", "snapshot-1");
    await calls.DeleteVolume({ volumeId: "pvc-1" }, never);
    expect(first.volumes.size).toBe(0);
  });

  test("does not delete a volume that was snapshotted in the last moment", async () => {
    await first.putVolume("pvc-1", { sizeBytes: mebibyte });
    cluster.onEffect = (method, when) => {
      if (method === "removeVolume" && when === "before") void first.putSnapshot("pvc-1", "snapshot-1");
    };
    const deleted = calls.DeleteVolume({ volumeId: "pvc-1" }, never);
    await expect(deleted).rejects.toMatchObject({ code: "PreconditionFailed" });
    expect(first.volumes.get("pvc-1")?.snapshots).toHaveLength(1);
  });

  test("refuses while it is attached to its node", async () => {
    await first.putVolume("pvc-1", { sizeBytes: mebibyte });
    first.attached.set("pvc-1", "/dev/loop7");
    const deleted = calls.DeleteVolume({ volumeId: "pvc-1" }, never);
    await expect(deleted).rejects.toMatchObject({ code: "InUse", message: expect.stringContaining("/dev/loop7") });
  });

  test("withdraws the request for a clone that waits, and removes one that was served", async () => {
    first.arrive("east.pvc-9", { source: "east" });
    const volumeContentSource = fromSnapshot("east.pvc-9@latest");
    for (const name of ["pvc-1", "pvc-2"]) {
      const waiting = calls.CreateVolume(createVolumeRequest({ name, volumeContentSource }), never);
      await expect(waiting).rejects.toMatchObject({ code: "ABORTED" });
    }
    await calls.DeleteVolume({ volumeId: "pvc-1" }, never);
    expect([...first.clones.keys()]).toEqual(["pvc-2"]);
    first.commit("east.pvc-9");
    await calls.DeleteVolume({ volumeId: "pvc-2" }, never);
    expect(first.volumes.size).toBe(0);
  });

  test("does not take a volume for gone while the agent that may have it does not answer", async () => {
    await second.putVolume("pvc-1", { sizeBytes: mebibyte });
    cluster.silent.add(second);
    await expect(calls.DeleteVolume({ volumeId: "pvc-1" }, never)).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("without an id is refused", async () => {
    await expect(calls.DeleteVolume({ volumeId: "" }, never)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

describe("ControllerExpandVolume", () => {
  const expand = (volumeId: string, requiredBytes: number, limitBytes = 0) =>
    calls.ControllerExpandVolume({ volumeId, capacityRange: range(requiredBytes, limitBytes), volumeCapability: null });

  beforeEach(async () => {
    await second.putVolume("pvc-1", { sizeBytes: 4 * mebibyte });
  });

  test("grows a volume in whole blocks, and has the node follow, each time it is asked", async () => {
    const grown = { capacityBytes: 8 * mebibyte, nodeExpansionRequired: true };
    expect(await expand("pvc-1", 8 * mebibyte - 1)).toEqual(grown);
    expect(await expand("pvc-1", 8 * mebibyte - 1)).toEqual(grown);
    expect(second.volumes.get("pvc-1")?.sizeBytes).toBe(8 * mebibyte);
  });

  test("leaves a volume as it is that is large enough", async () => {
    expect((await expand("pvc-1", mebibyte)).capacityBytes).toBe(4 * mebibyte);
  });

  test.each([
    ["pvc-9", 8 * mebibyte, 0, "NOT_FOUND"],
    ["Not A Handle", 8 * mebibyte, 0, "NOT_FOUND"],
    ["", 8 * mebibyte, 0, "INVALID_ARGUMENT"],
    ["pvc-1", 0, 0, "INVALID_ARGUMENT"],
    ["pvc-1", mebibyte, 2 * mebibyte, "OUT_OF_RANGE"],
    ["pvc-1", 2 ** 51, 0, "OUT_OF_RANGE"],
  ])("of %j to %i, at most %i bytes, is refused with %s", async (volumeId, required, limit, code) => {
    await expect(expand(volumeId, required, limit)).rejects.toMatchObject({ code });
    expect(second.volumes.get("pvc-1")?.sizeBytes).toBe(4 * mebibyte);
  });
});

describe("ListVolumes", () => {
  beforeEach(async () => {
    await first.putVolume("pvc-1", { sizeBytes: mebibyte });
    await second.putVolume("pvc-2", { sizeBytes: mebibyte });
  });

  test("lists the volumes of all agents and where they are, page by page", async () => {
    const one = await calls.ListVolumes({ maxEntries: 1, startingToken: "" });
    const two = await calls.ListVolumes({ maxEntries: 1, startingToken: one.nextToken });
    expect([...one.entries, ...two.entries]).toMatchObject([
      { volume: { volumeId: "pvc-1", accessibleTopology: [{ segments: { "longshore.dev/node": "node-1" } }] } },
      { volume: { volumeId: "pvc-2", accessibleTopology: [{ segments: { "longshore.dev/node": "node-2" } }] } },
    ]);
    expect(two.nextToken).toBe("");
    const wrong = calls.ListVolumes({ maxEntries: 0, startingToken: "invalid-token" });
    await expect(wrong).rejects.toMatchObject({ code: "ABORTED" });
  });

  test("gives no list that lacks what a silent agent has, unless that is lost for good", async () => {
    cluster.silent.add(second);
    const all = { maxEntries: 0, startingToken: "" };
    await expect(calls.ListVolumes(all)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("node-2"),
    });
    first.view.members = first.view.members.map((member) =>
      member.agentId === second.view.agentId ? { ...member, state: "lost" as const } : member,
    );
    expect((await calls.ListVolumes(all)).entries).toHaveLength(1);
  });
});

test("ListVolumes gives no list that lacks what an agent has which was silent only while it was read", async () => {
  await second.putVolume("pvc-2", { sizeBytes: mebibyte });
  listVolumes = () => listWithout(cluster, second);
  const listed = calls.ListVolumes({ maxEntries: 0, startingToken: "" });
  await expect(listed).rejects.toMatchObject({ code: "UNAVAILABLE", message: expect.stringContaining("node-2") });
});

describe("ValidateVolumeCapabilities", () => {
  type Parameters = Record<string, string>;
  function validate(volumeCapabilities: VolumeCapability[], parameters: Parameters = {}, volumeId = "pvc-1") {
    const asked = { volumeId, volumeContext: {}, volumeCapabilities, parameters, mutableParameters: {} };
    return calls.ValidateVolumeCapabilities(asked);
  }

  beforeEach(async () => {
    await calls.CreateVolume(createVolumeRequest({ accessibilityRequirements: onNodes(["node-2"]) }), never);
  });

  test("confirms what a volume can do, with what was asked", async () => {
    expect(await validate([mounted], { schedulePolicy: "hourly" })).toEqual({
      confirmed: { volumeContext: {}, volumeCapabilities: [mounted], parameters: { schedulePolicy: "hourly" } },
      message: "",
    });
  });

  test.each<[string, VolumeCapability[], Record<string, string>, string]>([
    ["several nodes", [{ ...mounted, accessMode: { mode: "MULTI_NODE_MULTI_WRITER" } }], {}, "MULTI_NODE_MULTI_WRITER"],
    ["another mode", [block], {}, "is of mode Filesystem"],
    ["unknown parameters", [mounted], { type: "ssd" }, "parameter type"],
  ])("does not confirm %s, and says why", async (_, capabilities, parameters, message) => {
    const answer = await validate(capabilities, parameters);
    expect(answer).toEqual({ confirmed: null, message: expect.stringContaining(message) });
  });

  test("of nothing, or of no volume, is an error", async () => {
    await expect(validate([])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(validate([mounted], {}, "")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(validate([mounted], {}, "pvc-9")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
