import { beforeEach, describe, expect, test } from "@jest/globals";
import type { FakeAgent } from "../../test/fakes/fake-agent.ts";
import { type FakeStorageCluster, fakeStorageCluster, listWithout } from "../../test/fakes/fake-storage-cluster.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import { groupCalls } from "./group-controller.ts";
import { oneOperationAtATime } from "./one-operation.ts";

const mebibyte = 2 ** 20;
const never = new AbortController().signal;

let cluster: FakeStorageCluster;
let first: FakeAgent;
let second: FakeAgent;
let calls: ReturnType<typeof groupCalls>;
let listVolumes: ClusterApi["listVolumes"];

beforeEach(async () => {
  cluster = fakeStorageCluster(2);
  listVolumes = cluster.api.listVolumes;
  [first, second] = cluster.agents as [FakeAgent, FakeAgent];
  calls = groupCalls({ cluster: cluster.api, listVolumes: () => listVolumes(), oneOperation: oneOperationAtATime() });
  for (const name of ["pvc-1", "pvc-2"]) await first.putVolume(name, { sizeBytes: mebibyte });
  await second.putVolume("pvc-3", { sizeBytes: mebibyte });
});

const create = (name: string, sourceVolumeIds: readonly string[]) =>
  calls.CreateVolumeGroupSnapshot({ name, sourceVolumeIds, parameters: {} }, never);
const remove = (groupSnapshotId: string, snapshotIds: readonly string[] = []) =>
  calls.DeleteVolumeGroupSnapshot({ groupSnapshotId, snapshotIds }, never);
const get = (groupSnapshotId: string, snapshotIds: readonly string[] = []) =>
  calls.GetVolumeGroupSnapshot({ groupSnapshotId, snapshotIds });

/** The snapshots that there are, as handles. */
async function present(): Promise<string[]> {
  const { items } = await cluster.api.listVolumes();
  return items.flatMap(({ name, snapshots }) => snapshots.map((snapshot) => `${name}/${snapshot.name}`)).sort();
}

describe("CreateVolumeGroupSnapshot", () => {
  test("snapshots volumes of several nodes at once, and the same name gives the same one", async () => {
    const made = await create("groupsnapshot-1", ["pvc-1", "pvc-3"]);
    const { groupSnapshot } = made;
    expect(groupSnapshot).toMatchObject({ groupSnapshotId: "csi//groupsnapshot-1", readyToUse: true });
    expect(groupSnapshot.snapshots.map(({ snapshotId, groupSnapshotId }) => [snapshotId, groupSnapshotId])).toEqual([
      ["pvc-1/groupsnapshot-1", "csi//groupsnapshot-1"],
      ["pvc-3/groupsnapshot-1", "csi//groupsnapshot-1"],
    ]);
    expect(await create("groupsnapshot-1", ["pvc-1", "pvc-3"])).toEqual(made);
    expect(await get("csi//groupsnapshot-1")).toEqual(made);
  });

  test.each([
    ["fewer volumes", ["pvc-1"]],
    ["more volumes", ["pvc-1", "pvc-2", "pvc-3"]],
    ["other volumes", ["pvc-1", "pvc-2"]],
  ])("of the same name and %s is refused", async (_, volumes) => {
    await create("g1", ["pvc-1", "pvc-3"]);
    const code = expect.stringMatching(/^(?:ALREADY_EXISTS|NameTaken)$/);
    await expect(create("g1", volumes)).rejects.toMatchObject({ code });
    expect(await present()).toEqual(["pvc-1/g1", "pvc-3/g1"]);
  });

  test.each([
    ["", ["pvc-1"], "INVALID_ARGUMENT"],
    ["g1", [], "INVALID_ARGUMENT"],
    ["g1", Array.from({ length: 257 }, (_, index) => `pvc-${index}`), "INVALID_ARGUMENT"],
    ["g1", ["pvc-1", "Not A Handle"], "NOT_FOUND"],
    ["g1", ["pvc-1", "pvc-9"], "NotFound"],
  ])("named %j is refused for what is wrong with it, and leaves nothing", async (name, volumes, code) => {
    await expect(create(name, volumes)).rejects.toMatchObject({ code });
    expect(await present()).toEqual([]);
  });

  test("that could not be taken at one moment leaves nothing, and is taken by the next try", async () => {
    first.groupRefusal = new LongshoreError("GroupInvalid", "not all were frozen");
    await expect(create("g1", ["pvc-1", "pvc-3"])).rejects.toMatchObject({ code: "GroupInvalid" });
    expect(await present()).toEqual([]);
    first.groupRefusal = undefined;
    await create("g1", ["pvc-1", "pvc-3"]);
    expect(await present()).toHaveLength(2);
  });
});

describe("DeleteVolumeGroupSnapshot", () => {
  test("deletes all of its parts, and succeeds for one that is gone or never was", async () => {
    await create("g1", ["pvc-1", "pvc-3"]);
    await first.putSnapshot("pvc-1", "snapshot-1");
    for (const id of ["csi//g1", "csi//g1", "csi//g9", "nothing"]) expect(await remove(id)).toEqual({});
    expect(await present()).toEqual(["pvc-1/snapshot-1"]);
  });

  test("goes on where an earlier try broke off", async () => {
    await create("g1", ["pvc-1", "pvc-3"]);
    let removals = 0;
    cluster.onEffect = (method, when) => {
      if (method !== "removeSnapshot" || when !== "before") return;
      removals++;
      if (removals === 2) throw new LongshoreError("Timeout", "no answer");
    };
    const ids = ["pvc-1/g1", "pvc-3/g1"];
    await expect(remove("csi//g1", ids)).rejects.toMatchObject({ code: "Timeout" });
    await remove("csi//g1", ids);
    expect(await present()).toEqual([]);
  });

  test.each([[["pvc-1/g1"]], [["pvc-1/g1", "pvc-3/g1", "pvc-1/snapshot-1"]], [["pvc-1/g1", "pvc-3/g1", "nothing"]]])(
    "changes nothing when it is asked for with %j",
    async (snapshotIds) => {
      await create("g1", ["pvc-1", "pvc-3"]);
      await first.putSnapshot("pvc-1", "snapshot-1");
      await expect(remove("csi//g1", snapshotIds)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
      expect(await present()).toHaveLength(3);
    },
  );

  test("leaves the snapshots of consistency groups, which are the operator's", async () => {
    await first.putGroupSnapshot("shop.orders", "auto-20260301t120000.000z", { volumes: ["pvc-1", "pvc-2"] });
    await remove("shop.orders//auto-20260301t120000.000z");
    await remove("csi//auto-20260301t120000.000z");
    expect(await present()).toHaveLength(2);
  });

  test("does not take parts for gone while the agent that may have them does not answer", async () => {
    await create("g1", ["pvc-1", "pvc-3"]);
    cluster.silent.add(second);
    await expect(remove("csi//g1")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(first.volumes.get("pvc-1")?.snapshots).toHaveLength(1);
  });

  test("leaves no part behind that an agent has which was silent only while the parts were read", async () => {
    await create("g1", ["pvc-1", "pvc-3"]);
    listVolumes = () => listWithout(cluster, second);
    await expect(remove("csi//g1")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(await present()).toEqual(["pvc-1/g1", "pvc-3/g1"]);
    listVolumes = cluster.api.listVolumes;
    await remove("csi//g1");
    expect(await present()).toEqual([]);
  });

  test("without an id is refused", async () => {
    await expect(remove("")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

describe("GetVolumeGroupSnapshot", () => {
  test.each([
    ["csi//g9", [], "NOT_FOUND"],
    ["shop.orders//g1", [], "NOT_FOUND"],
    ["nothing", [], "NOT_FOUND"],
    ["", [], "INVALID_ARGUMENT"],
    ["csi//g1", ["pvc-1/g1"], "INVALID_ARGUMENT"],
  ])("of %j with %j is refused with %s", async (id, snapshotIds, code) => {
    await create("g1", ["pvc-1", "pvc-3"]);
    await expect(get(id, snapshotIds)).rejects.toMatchObject({ code });
  });

  test("is not ready when a part is lost", async () => {
    await create("g1", ["pvc-1", "pvc-3"]);
    second.loseSnapshot("pvc-3", "g1");
    expect((await get("csi//g1")).groupSnapshot.readyToUse).toBe(false);
  });
});
