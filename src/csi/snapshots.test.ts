import { beforeEach, describe, expect, test } from "@jest/globals";
import type { FakeAgent } from "../../test/fakes/fake-agent.ts";
import { type FakeStorageCluster, fakeStorageCluster, listWithout } from "../../test/fakes/fake-storage-cluster.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import { oneOperationAtATime } from "./one-operation.ts";
import { csiGroup } from "./snapshot-messages.ts";
import { snapshotCalls } from "./snapshots.ts";

const mebibyte = 2 ** 20;
const never = new AbortController().signal;
const scheduled = "auto-20260301t120000.000z";

let cluster: FakeStorageCluster;
let first: FakeAgent;
let second: FakeAgent;
let calls: ReturnType<typeof snapshotCalls>;
let listVolumes: ClusterApi["listVolumes"];

beforeEach(async () => {
  cluster = fakeStorageCluster(2);
  listVolumes = cluster.api.listVolumes;
  [first, second] = cluster.agents as [FakeAgent, FakeAgent];
  calls = snapshotCalls({
    cluster: cluster.api,
    listVolumes: () => listVolumes(),
    oneOperation: oneOperationAtATime(),
  });
  await first.putVolume("pvc-1", { sizeBytes: mebibyte });
  await second.putVolume("pvc-2", { sizeBytes: 2 * mebibyte });
});

const create = (name: string, sourceVolumeId: string) =>
  calls.CreateSnapshot({ name, sourceVolumeId, parameters: {} }, never);

interface Filter {
  readonly snapshotId?: string;
  readonly sourceVolumeId?: string;
}

/** The handles of what is listed. */
async function list(filter: Filter = {}): Promise<string[]> {
  const request = { maxEntries: 0, startingToken: "", snapshotId: "", sourceVolumeId: "", ...filter };
  return (await calls.ListSnapshots(request)).entries.map(({ snapshot }) => snapshot.snapshotId);
}

describe("CreateSnapshot", () => {
  test("takes a snapshot, ready at once, and the same name gives the same one", async () => {
    const made = await create("snapshot-1", "pvc-2");
    expect(made.snapshot).toEqual({
      snapshotId: "pvc-2/snapshot-1",
      sourceVolumeId: "pvc-2",
      sizeBytes: 2 * mebibyte,
      creationTime: { seconds: Date.UTC(2026, 0, 1) / 1000, nanos: 0 },
      readyToUse: true,
      groupSnapshotId: "",
    });
    expect(await create("snapshot-1", "pvc-2")).toEqual(made);
    expect(second.volumes.get("pvc-2")?.snapshots).toHaveLength(1);
  });

  test.each([
    ["snapshot-1", "pvc-1", "ALREADY_EXISTS"],
    ["snapshot-2", "pvc-9", "NOT_FOUND"],
    ["snapshot-2", "Not A Handle", "NOT_FOUND"],
    ["", "pvc-1", "INVALID_ARGUMENT"],
    ["snapshot-2", "", "INVALID_ARGUMENT"],
  ])("named %j of %j is refused with %s", async (name, source, code) => {
    await create("snapshot-1", "pvc-2");
    await expect(create(name, source)).rejects.toMatchObject({ code });
    expect(await list()).toEqual(["pvc-2/snapshot-1"]);
  });

  test("under a schedule's name is another snapshot, which a user may delete", async () => {
    const { snapshot } = await create(scheduled, "pvc-1");
    expect(snapshot.snapshotId).not.toContain(`/${scheduled}`);
    await calls.DeleteSnapshot({ snapshotId: snapshot.snapshotId });
    expect(await list()).toEqual([]);
  });

  test("under the name of a group's snapshot is refused, of whichever volume", async () => {
    await first.putGroupSnapshot(csiGroup, "g1", { volumes: ["pvc-1"] });
    for (const source of ["pvc-1", "pvc-2"]) {
      await expect(create("g1", source)).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    }
  });

  test("with a parameter that nobody knows is refused by its name", async () => {
    const made = calls.CreateSnapshot({ name: "s", sourceVolumeId: "pvc-1", parameters: { mode: "fast" } }, never);
    await expect(made).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("mode") });
  });

  test("two snapshots of one name at once are ABORTED for the second", async () => {
    const both = await Promise.allSettled([create("snapshot-1", "pvc-1"), create("snapshot-1", "pvc-2")]);
    expect(both.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect(both[1]).toMatchObject({ reason: { code: "ABORTED" } });
  });
});

describe("DeleteSnapshot", () => {
  test("deletes a snapshot, and succeeds for one that is gone or never was", async () => {
    await create("snapshot-1", "pvc-1");
    for (const snapshotId of ["pvc-1/snapshot-1", "pvc-1/snapshot-1", "pvc-9/snapshot-1", "east@latest", "nothing"]) {
      expect(await calls.DeleteSnapshot({ snapshotId })).toEqual({});
    }
    expect(first.volumes.get("pvc-1")?.snapshots).toEqual([]);
  });

  test.each([scheduled, "demand-3f0a"])("leaves %s, which is the operator's, and says what to do", async (name) => {
    await first.putSnapshot("pvc-1", name);
    await expect(calls.DeleteSnapshot({ snapshotId: `pvc-1/${name}` })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("deletionPolicy to Retain"),
    });
    expect(first.volumes.get("pvc-1")?.snapshots).toHaveLength(1);
    // Once retention has taken it, the object may go as well.
    await first.removeSnapshot("pvc-1", name);
    expect(await calls.DeleteSnapshot({ snapshotId: `pvc-1/${name}` })).toEqual({});
  });

  test("leaves the points of migrated volumes, under whichever handle, while they are there", async () => {
    second.arrive("east.pvc-9", { source: "east" });
    const { pointId } = second.commit("east.pvc-9");
    for (const snapshotId of ["east.pvc-9@latest", `east.pvc-9@${pointId}`]) {
      await expect(calls.DeleteSnapshot({ snapshotId })).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    }
    expect(second.migratedVolumes.get("east.pvc-9")?.points).toHaveLength(1);
    await second.removeMigratedVolume("east.pvc-9");
    expect(await calls.DeleteSnapshot({ snapshotId: "east.pvc-9@latest" })).toEqual({});
  });

  test("leaves a part of a group snapshot, which goes with the group", async () => {
    await first.putGroupSnapshot(csiGroup, "g1", { volumes: ["pvc-1", "pvc-2"] });
    const deleted = calls.DeleteSnapshot({ snapshotId: "pvc-2/g1" });
    await expect(deleted).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(second.volumes.get("pvc-2")?.snapshots).toHaveLength(1);
  });

  test("does not take a snapshot for gone while the agent that may have it does not answer", async () => {
    await create("snapshot-1", "pvc-2");
    cluster.silent.add(second);
    const deleted = calls.DeleteSnapshot({ snapshotId: "pvc-2/snapshot-1" });
    await expect(deleted).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("without an id is refused", async () => {
    await expect(calls.DeleteSnapshot({ snapshotId: "" })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

describe("ListSnapshots", () => {
  let pointId: string;

  beforeEach(async () => {
    await first.putSnapshot("pvc-1", scheduled);
    await create("snapshot-1", "pvc-1");
    await create("snapshot-2", "pvc-2");
    second.arrive("east.pvc-9", { source: "east", sizeBytes: 4 * mebibyte });
    ({ pointId } = second.commit("east.pvc-9", { sourceTime: "2026-02-03T04:05:06.789Z" }));
  });

  test("lists what users, schedules and other clusters have taken", async () => {
    expect(await list()).toEqual([
      `east.pvc-9@${pointId}`,
      "east.pvc-9@latest",
      `pvc-1/${scheduled}`,
      "pvc-1/snapshot-1",
      "pvc-2/snapshot-2",
    ]);
  });

  test.each<[Filter, string[]]>([
    [{ snapshotId: "pvc-1/snapshot-1" }, ["pvc-1/snapshot-1"]],
    [{ snapshotId: `pvc-1/${scheduled}` }, [`pvc-1/${scheduled}`]],
    [{ snapshotId: "east.pvc-9@latest" }, ["east.pvc-9@latest"]],
    [{ snapshotId: "pvc-1/snapshot-9" }, []],
    [{ snapshotId: "nothing" }, []],
    [{ snapshotId: "pvc-1/snapshot-1", sourceVolumeId: "pvc-2" }, []],
    [{ sourceVolumeId: "pvc-1" }, [`pvc-1/${scheduled}`, "pvc-1/snapshot-1"]],
    [{ sourceVolumeId: "east.pvc-8" }, []],
    [{ sourceVolumeId: "Not A Handle" }, []],
  ])("lists for %j %j", async (filter, handles) => {
    expect(await list(filter)).toEqual(handles);
  });

  test("shows the newest point of a migrated volume as ready, also while a transfer runs", async () => {
    second.freeze("east.pvc-9");
    const request = { maxEntries: 0, startingToken: "", sourceVolumeId: "", snapshotId: "east.pvc-9@latest" };
    const [entry] = (await calls.ListSnapshots(request)).entries;
    expect(entry?.snapshot).toEqual({
      snapshotId: "east.pvc-9@latest",
      sourceVolumeId: "east.pvc-9",
      sizeBytes: 4 * mebibyte,
      creationTime: { seconds: Date.UTC(2026, 1, 3, 4, 5, 6) / 1000, nanos: 789_000_000 },
      readyToUse: true,
      groupSnapshotId: "",
    });
    expect(await list({ sourceVolumeId: "east.pvc-9" })).toEqual([`east.pvc-9@${pointId}`, "east.pvc-9@latest"]);
  });

  test("shows no point of a volume that has none yet", async () => {
    second.arrive("east.pvc-8", { source: "east" });
    expect(await list({ snapshotId: "east.pvc-8@latest" })).toEqual([]);
  });

  test("leaves out what is on its way out, and shows what is lost as not ready", async () => {
    await first.putHold("pvc-1", "snapshot-1", "backup");
    await calls.DeleteSnapshot({ snapshotId: "pvc-1/snapshot-1" });
    expect(await list({ sourceVolumeId: "pvc-1" })).toEqual([`pvc-1/${scheduled}`]);
    second.loseSnapshot("pvc-2", "snapshot-2");
    const request = { maxEntries: 0, startingToken: "", sourceVolumeId: "pvc-2", snapshotId: "" };
    const { entries } = await calls.ListSnapshots(request);
    expect(entries.map(({ snapshot }) => snapshot.readyToUse)).toEqual([false]);
  });

  test("leaves out what an agent takes for itself while it clones a volume", async () => {
    await first.putSnapshot("pvc-1", "clone-3f0a4c1e-9d55-4a39-8b13-0f6f7c1f2a10");
    expect(await list({ sourceVolumeId: "pvc-1" })).toEqual([`pvc-1/${scheduled}`, "pvc-1/snapshot-1"]);
  });

  test("comes in pages", async () => {
    const found: string[] = [];
    let startingToken = "";
    do {
      const page = await calls.ListSnapshots({ maxEntries: 2, startingToken, snapshotId: "", sourceVolumeId: "" });
      found.push(...page.entries.map(({ snapshot }) => snapshot.snapshotId));
      startingToken = page.nextToken;
    } while (startingToken !== "");
    expect(found).toEqual(await list());
  });

  test("gives no list that lacks what a silent agent has, and finds what the others have", async () => {
    cluster.silent.add(second);
    await expect(list()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(await list({ snapshotId: "pvc-1/snapshot-1" })).toEqual(["pvc-1/snapshot-1"]);
    await expect(list({ snapshotId: "pvc-2/snapshot-2" })).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("gives no list that lacks what an agent has which was silent only while either list was read", async () => {
    const { listMigratedVolumes } = cluster.api;
    listVolumes = () => listWithout(cluster, second);
    await expect(list()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    listVolumes = cluster.api.listVolumes;
    cluster.api.listMigratedVolumes = async () => {
      const all = await listMigratedVolumes();
      return { ...all, answered: all.answered.slice(0, 1) };
    };
    await expect(list()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    cluster.api.listMigratedVolumes = listMigratedVolumes;
    await list();
  });
});
