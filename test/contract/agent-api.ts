// What every AgentApi promises, whoever implements it: the engine, the HTTP client in front of a server, the fake.
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { type ErrorCode, LongshoreError } from "../../src/domain/errors.ts";
import type { AgentApi, ExtentQuery } from "../../src/wire/agent-api.ts";
import type {
  Change,
  CloneView,
  JobSpec,
  JobView,
  LocationSpec,
  SourceSpec,
  VolumeOrigin,
  VolumeSpec,
} from "../../src/wire/schemas.ts";

/** An AgentApi and what a test must be able to make happen behind it. */
export interface AgentWorld {
  readonly api: AgentApi;
  /** Specs that this world accepts. */
  readonly location: LocationSpec;
  readonly source: SourceSpec;
  /** Lets a job come to its end as Succeeded. Jobs of this world do not do so before. */
  succeedJob(name: string): Promise<void>;
  /** Makes a migrated volume of a consented source appear, without a point yet; resolves with its name. */
  arrive(): Promise<string>;
  /** Begins a transfer into it; it is Frozen when this resolves. */
  freeze(migratedVolume: string): Promise<void>;
  /** Commits the transfer. */
  commit(migratedVolume: string): Promise<void>;
  /** An application writes something else than before to a volume; whole blocks. */
  write(volume: string, offset: number, length: number): Promise<void>;
  /** An application discards a part of a volume; whole blocks. */
  discard(volume: string, offset: number, length: number): Promise<void>;
  /** An application has the volume attached until what this gives is called. */
  attach(volume: string): Promise<() => Promise<void>>;
  /** So much time passes that clones which expire are about to go. */
  outwaitClones(): Promise<void>;
  close(): Promise<void>;
}

const mebibyte = 2 ** 20;
const block = 4096;
const spec: VolumeSpec = { sizeBytes: mebibyte };

export function agentApiContract(implementation: string, open: () => Promise<AgentWorld>): void {
  let world: AgentWorld;
  let api: AgentApi;
  let ended: AbortController;

  beforeEach(async () => {
    world = await open();
    api = world.api;
    ended = new AbortController();
  });

  afterEach(async () => {
    ended.abort();
    await world.close();
  });

  describe(`the agent's API, ${implementation}`, () => {
    test("describes itself with at least one member", async () => {
      const view = await api.describe();
      expect(view.members.map((member) => member.agentId)).toContain(view.agentId);
    });

    test("one that answers is not forgotten, and one that is not known cannot be", async () => {
      const { agentId } = await api.describe();
      await expect(api.forgetMember(agentId)).rejects.toMatchObject({ code: "InUse" });
      const nobody = "00000000-0000-4000-8000-00000000000f";
      await expect(api.forgetMember(nobody)).rejects.toMatchObject({ code: "NotFound" });
    });

    describe("volumes", volumes);
    describe("local clones", localClones);
    describe("snapshots", snapshots);
    describe("extents", extents);
    describe("snapshots of a group", groupSnapshots);
    describe("locations", locations);
    describe("jobs", jobs);
    describe("jobs of a group", groupJobs);
    describe("sources", sources);
    describe("clones", clones);
    describe("changes", changes);
  });

  function volumes() {
    test("a put makes a volume, and putting it again changes nothing", async () => {
      const made = await api.putVolume("data", { ...spec, metadata: { "pvc.name": "größe" }, migrationEnabled: true });
      expect(made).toMatchObject({
        name: "data",
        sizeBytes: mebibyte,
        migrationEnabled: true,
        snapshots: [],
        bases: [],
      });
      expect(await api.putVolume("data", spec)).toEqual(made);
      expect(await api.getVolume("data")).toEqual(made);
      expect((await api.listVolumes()).items).toEqual([made]);
    });

    test("a put with other fields changes them, leaves absent ones, and raises the revision", async () => {
      const made = await api.putVolume("data", { ...spec, metadata: { a: "1" } });
      const grown = await api.putVolume("data", { sizeBytes: 2 * mebibyte, migrationEnabled: true });
      expect(grown).toMatchObject({
        sizeBytes: 2 * mebibyte,
        metadata: { a: "1" },
        migrationEnabled: true,
        uid: made.uid,
      });
      expect(grown.revision).toBeGreaterThan(made.revision);
    });

    test("shrinking is refused and changes nothing", async () => {
      const made = await api.putVolume("data", { sizeBytes: 2 * mebibyte });
      await fails("ShrinkRefused", api.putVolume("data", spec));
      expect(await api.getVolume("data")).toEqual(made);
    });

    test("a put or a removal decided on an old revision is refused", async () => {
      const made = await api.putVolume("data", spec);
      const grown = await api.putVolume("data", { sizeBytes: 2 * mebibyte }, { ifMatch: made.revision });
      await fails("PreconditionFailed", api.putVolume("data", { sizeBytes: 3 * mebibyte }, { ifMatch: made.revision }));
      await fails("PreconditionFailed", api.removeVolume("data", { ifMatch: made.revision }));
      expect(await api.getVolume("data")).toEqual(grown);
      await api.removeVolume("data", { ifMatch: grown.revision });
      await fails("NotFound", api.getVolume("data"));
    });

    test("a precondition on a volume that does not exist is refused", async () => {
      await fails("PreconditionFailed", api.putVolume("data", spec, { ifMatch: 1 }));
    });

    test("removing twice succeeds, and getting what is gone does not", async () => {
      await api.putVolume("data", spec);
      await api.removeVolume("data");
      await api.removeVolume("data");
      await fails("NotFound", api.getVolume("data"));
    });

    test("a volume made again under the same name is another one", async () => {
      const first = await api.putVolume("data", spec);
      await api.removeVolume("data");
      const second = await api.putVolume("data", spec);
      expect(second.uid).not.toBe(first.uid);
    });

    test("a volume that is attached is not removed, and is once it is detached", async () => {
      const made = await api.putVolume("data", spec);
      const detach = await world.attach("data");
      await fails("InUse", api.removeVolume("data"));
      expect(await api.getVolume("data")).toEqual(made);
      await detach();
      await api.removeVolume("data");
      await fails("NotFound", api.getVolume("data"));
    });

    test("an affinity is kept when none is given, changed by another one, and taken away by an empty one", async () => {
      expect((await api.putVolume("plain", spec)).affinity).toBeNull();
      const made = await api.putVolume("data", { ...spec, affinity: "shop/db-0" });
      expect(made.affinity).toBe("shop/db-0");
      expect(await api.putVolume("data", spec)).toEqual(made);
      const changed = await api.putVolume("data", { ...spec, affinity: "shop/db-1" });
      expect(changed.affinity).toBe("shop/db-1");
      expect(changed.revision).toBeGreaterThan(made.revision);
      expect((await api.putVolume("data", { ...spec, affinity: "" })).affinity).toBeNull();
    });
  }

  function localClones() {
    const ofSnapshot: VolumeOrigin = { volume: "data", snapshot: "s1" };
    const ofVolume: VolumeOrigin = { volume: "data" };

    beforeEach(async () => {
      await api.putVolume("data", { ...spec, metadata: { a: "1" } });
      await world.write("data", 0, block);
      await api.putSnapshot("data", "s1");
      await world.write("data", 2 * block, block);
    });

    async function heldBy(volume: string): Promise<string[]> {
      const { snapshots } = await api.getVolume(volume);
      return snapshots.flatMap(({ name, holds }) => [name, ...holds.map(({ reason }) => reason)]);
    }

    /** What a volume holds now, by its blocks. */
    async function blocksOf(volume: string): Promise<number[]> {
      await api.putSnapshot(volume, "looked-at");
      const page = await api.listExtents(volume, "looked-at", {});
      await api.removeSnapshot(volume, "looked-at");
      return page.extents.flatMap(({ offset, length }) =>
        Array.from({ length: length / block }, (_, nth) => offset / block + nth),
      );
    }

    test("a clone of a snapshot holds what that held, and is a volume like any other", async () => {
      const asked = { sizeBytes: 2 * mebibyte, from: ofSnapshot, migrationEnabled: true, affinity: "x" };
      const made = await api.putVolume("copy", asked);
      expect(made).toMatchObject({ name: "copy", ...asked });
      expect([made.metadata, made.lineage, made.snapshots]).toEqual([{}, null, []]);
      expect(await blocksOf("copy")).toEqual([0]);
      expect(await heldBy("data")).toEqual(["s1"]);
      await world.write("copy", 4 * block, block);
      expect(await blocksOf("data")).toEqual([0, 2]);
      await api.removeVolume("data");
      expect(await blocksOf("copy")).toEqual([0, 4]);
    });

    test("a clone of a volume holds what that holds now, and leaves no snapshot", async () => {
      const made = await api.putVolume("copy", { ...spec, from: ofVolume });
      expect(made.from).toEqual(ofVolume);
      expect(await blocksOf("copy")).toEqual([0, 2]);
      expect(await heldBy("data")).toEqual(["s1"]);
    });

    test("asked for again it is the same volume, also when what it was made of is gone", async () => {
      const made = {
        copy: await api.putVolume("copy", { ...spec, from: ofSnapshot }),
        twin: await api.putVolume("twin", { ...spec, from: ofVolume }),
      };
      expect(await api.putVolume("copy", { ...spec, from: ofSnapshot })).toEqual(made.copy);
      expect(await api.putVolume("twin", spec)).toEqual(made.twin);
      await api.removeVolume("data");
      expect(await api.putVolume("copy", { ...spec, from: ofSnapshot })).toEqual(made.copy);
      expect(await api.putVolume("twin", { ...spec, from: ofVolume })).toEqual(made.twin);
    });

    test("a name that stands for a volume made of something else is refused, and nothing is changed", async () => {
      await api.putSnapshot("data", "s2");
      await api.putVolume("plain", spec);
      const made = await api.putVolume("copy", { ...spec, from: ofSnapshot });
      await fails("NameTaken", api.putVolume("copy", { ...spec, from: ofVolume }));
      await fails("NameTaken", api.putVolume("copy", { ...spec, from: { ...ofSnapshot, snapshot: "s2" } }));
      await fails("NameTaken", api.putVolume("copy", { ...spec, from: { ...ofSnapshot, volume: "plain" } }));
      await fails("NameTaken", api.putVolume("plain", { ...spec, from: ofSnapshot }));
      expect(await api.getVolume("copy")).toEqual(made);
    });

    test("one of what does not exist, or smaller than that, is refused and leaves nothing", async () => {
      const before = await api.listVolumes();
      await fails("NotFound", api.putVolume("copy", { ...spec, from: { volume: "nothing" } }));
      await fails("NotFound", api.putVolume("copy", { ...spec, from: { volume: "nothing", snapshot: "s1" } }));
      await fails("NotFound", api.putVolume("copy", { ...spec, from: { volume: "data", snapshot: "nothing" } }));
      await fails("ShrinkRefused", api.putVolume("copy", { sizeBytes: block, from: ofSnapshot }));
      await fails("ShrinkRefused", api.putVolume("copy", { sizeBytes: block, from: ofVolume }));
      expect((await api.listVolumes()).items).toEqual(before.items);
      await api.putVolume("copy", spec);
    });

    test("a snapshot that is on its way out is not cloned", async () => {
      await api.putHold("data", "s1", "ann");
      await api.removeSnapshot("data", "s1");
      await fails("SnapshotGone", api.putVolume("copy", { ...spec, from: ofSnapshot }));
    });
  }

  function extents() {
    const at = (offset: number, length: number) => ({ offset: offset * block, length: length * block });
    const read = async (snapshot: string, query: ExtentQuery = {}) =>
      (await api.listExtents("data", snapshot, query)).extents;

    beforeEach(async () => {
      await api.putVolume("data", spec);
      await world.write("data", 0, 2 * block);
      await world.write("data", 8 * block, block);
      await api.putSnapshot("data", "s1");
      await world.write("data", block, 2 * block);
      await world.discard("data", 8 * block, block);
      await api.putVolume("data", { sizeBytes: 2 * mebibyte });
      await world.write("data", mebibyte, block);
      await api.putSnapshot("data", "s2");
    });

    test("of a snapshot alone are those it has allocated", async () => {
      expect(await api.listExtents("data", "s1", {})).toEqual({
        sizeBytes: mebibyte,
        extents: [at(0, 2), at(8, 1)],
        next: null,
      });
      expect(await read("s2")).toEqual([at(0, 3), at(256, 1)]);
    });

    test("with a base are those that differ from it, whether there is data or a hole by now", async () => {
      expect(await api.listExtents("data", "s2", { base: "s1" })).toEqual({
        sizeBytes: 2 * mebibyte,
        extents: [at(1, 2), at(8, 1), at(256, 1)],
        next: null,
      });
      expect(await read("s1", { base: "s1" })).toEqual([]);
    });

    test("come in pages, each beginning where the one before says, or at any byte", async () => {
      const first = await api.listExtents("data", "s2", { base: "s1", max: 2 });
      expect([first.extents, first.next]).toEqual([[at(1, 2), at(8, 1)], 256 * block]);
      const rest = await api.listExtents("data", "s2", { base: "s1", max: 2, from: 256 * block });
      expect([rest.extents, rest.next]).toEqual([[at(256, 1)], null]);
      expect(await read("s2", { base: "s1", from: 2 * block, max: 1 })).toEqual([at(2, 1)]);
      expect(await read("s2", { from: 2 * mebibyte })).toEqual([]);
    });

    test("of what does not exist, of a base that is newer, or in pages too large, are refused", async () => {
      await fails("NotFound", api.listExtents("nothing", "s1", {}));
      await fails("NotFound", api.listExtents("data", "nothing", {}));
      await fails("NotFound", api.listExtents("data", "s2", { base: "nothing" }));
      await fails("BadRequest", api.listExtents("data", "s1", { base: "s2" }));
      await fails("BadRequest", api.listExtents("data", "s1", { max: 4097 }));
      await fails("BadRequest", api.listExtents("data", "s1", { max: 0 }));
      await api.putHold("data", "s1", "ann");
      await api.removeSnapshot("data", "s1");
      await fails("SnapshotGone", api.listExtents("data", "s1", {}));
      await fails("SnapshotGone", api.listExtents("data", "s2", { base: "s1" }));
    });
  }

  function snapshots() {
    beforeEach(async () => {
      await api.putVolume("data", spec);
    });

    test("the same name gives the same snapshot, another name the next generation", async () => {
      const first = await api.putSnapshot("data", "s1");
      expect(first).toMatchObject({ name: "s1", volume: "data", state: "sealed", released: false, holds: [] });
      expect(await api.putSnapshot("data", "s1")).toEqual(first);
      const second = await api.putSnapshot("data", "s2");
      expect(second.generation).toBe(first.generation + 1);
      expect(second.pointId).not.toBe(first.pointId);
      expect((await api.getVolume("data")).snapshots).toEqual([first, second]);
    });

    test("a group's snapshots share a point, and the same name gives the same ones", async () => {
      await api.putVolume("logs", spec);
      const both = { volumes: ["logs", "data"] };
      const first = await api.putGroupSnapshot("shop", "g1", both);
      expect(first).toMatchObject({ group: "shop", name: "g1" });
      expect(first.snapshots.map(({ volume, name, state }) => [volume, name, state])).toEqual([
        ["logs", "g1", "sealed"],
        ["data", "g1", "sealed"],
      ]);
      for (const { groupPoint } of first.snapshots) expect(groupPoint).toBe(first.groupPoint);
      expect((await api.getVolume("data")).snapshots).toEqual([first.snapshots[1]]);
      expect(await api.putGroupSnapshot("shop", "g1", both)).toEqual(first);
      expect((await api.putGroupSnapshot("shop", "g2", both)).groupPoint).not.toBe(first.groupPoint);
    });

    test("a group's snapshot of a volume that does not exist, or under a name that is in use, is refused", async () => {
      await fails("NotFound", api.putGroupSnapshot("shop", "g1", { volumes: ["data", "nothing"] }));
      await api.putSnapshot("data", "s1");
      await fails("NameTaken", api.putGroupSnapshot("shop", "s1", { volumes: ["data"] }));
      expect((await api.getVolume("data")).snapshots).toHaveLength(1);
    });

    test("a snapshot of a volume that does not exist is refused", async () => {
      await fails("NotFound", api.putSnapshot("nothing", "s1"));
    });

    test("releasing a snapshot without holds removes it, again and again", async () => {
      await api.putSnapshot("data", "s1");
      expect(await api.removeSnapshot("data", "s1")).toBeUndefined();
      expect(await api.removeSnapshot("data", "s1")).toBeUndefined();
      expect((await api.getVolume("data")).snapshots).toEqual([]);
    });

    test("a held snapshot stays when released, and goes with its last hold", async () => {
      await api.putSnapshot("data", "s1");
      await api.putHold("data", "s1", "ann");
      await api.putHold("data", "s1", "bob");
      const held = await api.putHold("data", "s1", "ann");
      expect(held.holds.map(({ reason, owner }) => `${reason} ${owner}`)).toEqual(["user ann", "user bob"]);
      expect(await api.removeSnapshot("data", "s1")).toMatchObject({ released: true });
      await api.removeHold("data", "s1", { reason: "user", owner: "ann" });
      expect((await api.getVolume("data")).snapshots).toMatchObject([{ name: "s1", released: true }]);
      await api.removeHold("data", "s1", { reason: "user", owner: "bob" });
      expect((await api.getVolume("data")).snapshots).toEqual([]);
      await api.removeHold("data", "s1", { reason: "user", owner: "bob" });
    });

    test("a hold on what does not exist is refused", async () => {
      await fails("NotFound", api.putHold("data", "nothing", "ann"));
      await fails("NotFound", api.putHold("nothing", "s1", "ann"));
    });

    test("a hold's owner may carry any characters", async () => {
      await api.putSnapshot("data", "s1");
      const owner = "team/ops & sons?#%2F ü";
      expect((await api.putHold("data", "s1", owner)).holds).toMatchObject([{ reason: "user", owner }]);
      await api.removeHold("data", "s1", { reason: "user", owner });
      expect((await api.getVolume("data")).snapshots).toMatchObject([{ holds: [] }]);
    });
  }

  function groupSnapshots() {
    const volumes = ["logs", "data"];

    beforeEach(async () => {
      for (const name of [...volumes, "other"]) await api.putVolume(name, spec);
    });

    test("one of each volume, in the order asked for, all of one group point; the same name is the same again", async () => {
      const taken = await api.putGroupSnapshot("shop.db", "s1", { volumes });
      expect(taken).toMatchObject({ group: "shop.db", name: "s1" });
      const { groupPoint } = taken;
      const tie = { name: "s1", state: "sealed", group: "shop.db", groupPoint };
      expect(taken.snapshots).toMatchObject(volumes.map((volume) => ({ volume, ...tie })));
      for (const [index, volume] of volumes.entries()) {
        expect((await api.getVolume(volume)).snapshots).toEqual([taken.snapshots[index]]);
      }
      const again = await api.putGroupSnapshot("shop.db", "s1", { volumes });
      expect([again.groupPoint, again.snapshots]).toEqual([groupPoint, taken.snapshots]);
      const next = await api.putGroupSnapshot("shop.db", "s2", { volumes });
      expect(next.groupPoint).not.toBe(groupPoint);
      expect((await api.getVolume("other")).snapshots).toEqual([]);
    });

    test("a volume that does not exist is refused, and nothing is taken of the others", async () => {
      await fails("NotFound", api.putGroupSnapshot("shop.db", "s1", { volumes: [...volumes, "nothing"] }));
      for (const volume of volumes) expect((await api.getVolume(volume)).snapshots).toEqual([]);
    });

    test("a name that stands for anything else is refused", async () => {
      await api.putGroupSnapshot("shop.db", "s1", { volumes });
      await fails("NameTaken", api.putGroupSnapshot("shop.db", "s1", { volumes: [...volumes, "other"] }));
      await fails("NameTaken", api.putGroupSnapshot("shop.web", "s1", { volumes }));
      await api.putSnapshot("data", "s2");
      await fails("NameTaken", api.putGroupSnapshot("shop.db", "s2", { volumes }));
      expect((await api.getVolume("logs")).snapshots).toHaveLength(1);
    });

    test("once taken, each volume's part is released by itself", async () => {
      await api.putGroupSnapshot("shop.db", "s1", { volumes });
      expect(await api.removeSnapshot("data", "s1")).toBeUndefined();
      expect((await api.getVolume("data")).snapshots).toEqual([]);
      expect((await api.getVolume("logs")).snapshots).toMatchObject([{ name: "s1", state: "sealed" }]);
    });

    test("a group of one volume is one", async () => {
      const { snapshots } = await api.putGroupSnapshot("shop.db", "s1", { volumes: ["data"] });
      expect(snapshots).toMatchObject([{ volume: "data", group: "shop.db" }]);
    });
  }

  function locations() {
    test("a put sets a location and probes it; putting it again changes nothing", async () => {
      expect(await api.putLocation("west", world.location)).toMatchObject({ name: "west", spec: world.location });
      const probed = await settledLocation("west");
      expect(probed.probedAt).not.toBeNull();
      expect((await api.putLocation("west", world.location)).revision).toBeGreaterThanOrEqual(probed.revision);
      expect((await api.listLocations()).items.map((location) => location.name)).toEqual(["west"]);
    });

    test("an old revision is refused, a removal is final", async () => {
      const made = await api.putLocation("west", world.location);
      await settledLocation("west");
      const changed = { ...world.location, jobsMax: 7 };
      await fails("PreconditionFailed", api.putLocation("west", changed, { ifMatch: made.revision + 1_000_000 }));
      expect((await api.getLocation("west")).spec).toEqual(world.location);
      await api.removeLocation("west");
      await api.removeLocation("west");
      await fails("NotFound", api.getLocation("west"));
    });

    test("a location in use is removed by force only, and then its base holds are dropped", async () => {
      await migratedOnce();
      await fails("InUse", api.removeLocation("west"));
      await api.removeLocation("west", { force: true });
      expect(await api.getVolume("data")).toMatchObject({ bases: [], snapshots: [{ name: "s1", holds: [] }] });
    });
  }

  function jobs() {
    test("a job holds its snapshot, moves the base when it succeeds, and the next one moves it on", async () => {
      await migratedOnce();
      const [s1] = (await api.getVolume("data")).snapshots;
      expect(await api.getVolume("data")).toMatchObject({ bases: [{ location: "west", pointId: s1?.pointId }] });
      await api.removeSnapshot("data", "s1");
      await api.putSnapshot("data", "s2");
      await api.putJob("job-2", { volume: "data", location: "west", snapshot: "s2" });
      const during = await api.getVolume("data");
      expect(during.snapshots.map((one) => one.holds.map((hold) => hold.reason))).toEqual([["base"], ["job"]]);
      await world.succeedJob("job-2");
      // The file goes behind the job's back, so the row of the old base may be seen as `deleting` for a moment.
      const { snapshots } = await settled(
        "volume",
        "data",
        () => api.getVolume("data"),
        (volume) => volume.snapshots.length === 1,
      );
      expect(snapshots).toMatchObject([{ name: "s2", holds: [{ reason: "base", owner: "west" }] }]);
    });

    test("the same put is the same job, another volume or snapshot is refused", async () => {
      const spec = await pendingJob("job-1");
      expect(await api.putJob("job-1", spec)).toMatchObject({ name: "job-1", spec });
      await api.putSnapshot("data", "s2");
      await fails("NameTaken", api.putJob("job-1", { ...spec, snapshot: "s2" }));
      expect((await api.listJobs()).items).toHaveLength(1);
    });

    test("a job about what does not exist is refused and leaves nothing", async () => {
      const spec = await pendingJob("job-1");
      await fails("NotFound", api.putJob("job-2", { ...spec, volume: "nothing" }));
      await fails("NotFound", api.putJob("job-2", { ...spec, snapshot: "nothing" }));
      await fails("NotFound", api.putJob("job-2", { ...spec, location: "nothing" }));
      expect((await api.listJobs()).items.map((job) => job.name)).toEqual(["job-1"]);
    });

    test("a running job and its volume are not removed; cancelled, both are", async () => {
      const spec = await pendingJob("job-1");
      await fails("InUse", api.removeJob("job-1"));
      await fails("InUse", api.removeVolume("data"));
      await api.putJob("job-1", { ...spec, cancel: true });
      expect((await lastOf("job-1")).state).toBe("Cancelled");
      expect((await api.getVolume("data")).snapshots).toMatchObject([{ holds: [] }]);
      await api.removeJob("job-1");
      await api.removeJob("job-1");
      await api.removeVolume("data");
      await fails("NotFound", api.getJob("job-1"));
    });

    test("a suspended job says so, and goes on when it is resumed", async () => {
      const spec = await pendingJob("job-1");
      await api.putJob("job-1", { ...spec, suspend: true });
      await until("job-1", (job) => job.state === "Suspended");
      await api.putJob("job-1", { ...spec, suspend: false });
      await until("job-1", (job) => job.state !== "Suspended");
      await world.succeedJob("job-1");
      expect((await api.getJob("job-1")).state).toBe("Succeeded");
    });

    test("a follower sees the job now, and its end", async () => {
      await pendingJob("job-1");
      const seen: JobView[] = [];
      for await (const job of api.followJob("job-1", ended.signal)) {
        if (seen.length === 0) await world.succeedJob("job-1");
        seen.push(job);
      }
      expect(seen.at(-1)).toMatchObject({ name: "job-1", state: "Succeeded" });
      expect(seen.at(-1)?.finishedAt).not.toBeNull();
    });

    test("following what does not exist throws, and a signal ends a follower quietly", async () => {
      await fails("NotFound", lastOf("nothing"));
      await pendingJob("job-1");
      let count = 0;
      for await (const _ of api.followJob("job-1", ended.signal)) if (++count === 1) ended.abort();
      expect(count).toBe(1);
    });
  }

  function groupJobs() {
    const volumes = ["data", "logs"];
    const group = { name: "shop.db", volumes };
    const job: JobSpec = { group, location: "west", snapshot: "s1" };

    beforeEach(async () => {
      await api.putLocation("west", world.location);
      await settledLocation("west");
      for (const name of volumes) await api.putVolume(name, spec);
    });

    async function holds(): Promise<string[]> {
      const views = await Promise.all(volumes.map((name) => api.getVolume(name)));
      return views.map(({ snapshots }) =>
        snapshots.map((one) => one.holds.map(({ reason }) => reason).join("+")).join(" "),
      );
    }

    test("it holds the part of each volume, moves all bases when it succeeds, and the next one moves them on", async () => {
      const { groupPoint } = await api.putGroupSnapshot(group.name, "s1", { volumes });
      const taken = await api.putJob("job-1", job);
      expect(taken).toMatchObject({ name: "job-1", spec: job, to: { pointId: groupPoint, sizeBytes: 2 * mebibyte } });
      expect(await holds()).toEqual(["job", "job"]);
      await world.succeedJob("job-1");
      expect((await api.getJob("job-1")).state).toBe("Succeeded");
      expect(await holds()).toEqual(["base", "base"]);
      await api.putGroupSnapshot(group.name, "s2", { volumes });
      await api.putJob("job-2", { ...job, snapshot: "s2" });
      expect(await holds()).toEqual(["base job", "base job"]);
      await world.succeedJob("job-2");
      expect(await holds()).toEqual([" base", " base"]);
      expect((await api.listJobs()).items.map(({ name }) => name)).toEqual(["job-1", "job-2"]);
    });

    test("the same put is the same job; other volumes, or one in place of the group, are refused", async () => {
      await api.putGroupSnapshot(group.name, "s1", { volumes });
      await api.putJob("job-1", job);
      expect(await api.putJob("job-1", job)).toMatchObject({ name: "job-1", spec: job });
      await fails("NameTaken", api.putJob("job-1", { ...job, group: { ...group, volumes: ["data"] } }));
      await fails("NameTaken", api.putJob("job-1", { volume: "data", location: "west", snapshot: "s1" }));
      expect((await api.listJobs()).items).toHaveLength(1);
    });

    test("what was not taken together is refused, and leaves nothing", async () => {
      await api.putGroupSnapshot("shop.one", "s1", { volumes: ["data"] });
      await api.putGroupSnapshot("shop.other", "s1", { volumes: ["logs"] });
      await fails("GroupInvalid", api.putJob("job-1", job));
      for (const name of volumes) await api.putSnapshot(name, "s2");
      await fails("NotFound", api.putJob("job-1", { ...job, snapshot: "s2" }));
      await fails("NotFound", api.putJob("job-1", { ...job, snapshot: "nothing" }));
      await fails("NotFound", api.putJob("job-1", { ...job, location: "nothing" }));
      expect([(await api.listJobs()).items, await holds()]).toEqual([[], [" ", " "]]);
    });

    test("it is of a volume or of a group, and a plan is of a volume", async () => {
      await api.putGroupSnapshot(group.name, "s1", { volumes });
      await fails("BadRequest", api.putJob("job-1", { ...job, dryRun: true }));
      await fails("BadRequest", api.putJob("job-1", { ...job, volume: "data" }));
      await fails("BadRequest", api.putJob("job-1", { location: "west", snapshot: "s1" }));
      expect((await api.listJobs()).items).toEqual([]);
    });

    test("neither a running job nor any of its volumes is removed; cancelled, all are", async () => {
      await api.putGroupSnapshot(group.name, "s1", { volumes });
      await api.putJob("job-1", job);
      await fails("InUse", api.removeJob("job-1"));
      for (const name of volumes) await fails("InUse", api.removeVolume(name));
      await api.putJob("job-1", { ...job, cancel: true });
      expect((await lastOf("job-1")).state).toBe("Cancelled");
      expect(await holds()).toEqual(["", ""]);
      await api.removeJob("job-1");
      for (const name of volumes) await api.removeVolume(name);
      await fails("NotFound", api.getJob("job-1"));
    });

    test("a suspended one says so, and goes on when it is resumed", async () => {
      await api.putGroupSnapshot(group.name, "s1", { volumes });
      await api.putJob("job-1", job);
      await api.putJob("job-1", { ...job, suspend: true });
      await until("job-1", ({ state }) => state === "Suspended");
      await api.putJob("job-1", { ...job, suspend: false });
      await until("job-1", ({ state }) => state !== "Suspended");
      await world.succeedJob("job-1");
      expect((await api.getJob("job-1")).state).toBe("Succeeded");
    });

    test("a part of a group's snapshot may also be brought over by itself", async () => {
      await api.putGroupSnapshot(group.name, "s1", { volumes });
      await api.putJob("job-1", { volume: "data", location: "west", snapshot: "s1" });
      await world.succeedJob("job-1");
      expect(await holds()).toEqual(["base", ""]);
    });
  }

  function sources() {
    test("consent is given, changed and withdrawn", async () => {
      const made = await api.putSource("east", world.source);
      expect(made).toMatchObject({ name: "east", spec: world.source });
      expect(await api.putSource("east", world.source)).toEqual(made);
      const changed = await api.putSource("east", { ...world.source, pointsKept: 5 }, { ifMatch: made.revision });
      expect(changed.spec.pointsKept).toBe(5);
      await fails("PreconditionFailed", api.putSource("east", world.source, { ifMatch: made.revision }));
      await fails("PreconditionFailed", api.removeSource("east", { ifMatch: made.revision }));
      expect((await api.listSources()).items).toEqual([changed]);
      await api.removeSource("east");
      await api.removeSource("east");
      await fails("NotFound", api.getSource("east"));
    });
  }

  function clones() {
    test("a clone of an available point is ready at once, as a volume with its lineage", async () => {
      const name = await available();
      const clone = await api.putClone("copy", { migratedVolume: name, point: "latest" });
      const [point] = (await api.getMigratedVolume(name)).points;
      expect(clone).toMatchObject({ state: "Ready", pointId: point?.pointId });
      const volume = await api.getVolume(String(clone.volume));
      expect(volume).toMatchObject({ sizeBytes: point?.sizeBytes, lineage: { pointId: point?.pointId } });
    });

    test("a clone asked for while frozen or empty waits, and the commit serves it", async () => {
      const name = await world.arrive();
      expect(await api.putClone("early", { migratedVolume: name, point: "latest" })).toMatchObject({
        state: "Waiting",
      });
      await world.freeze(name);
      const asked = await api.putClone("frozen", { migratedVolume: name, point: "latest" });
      expect(asked).toMatchObject({ state: "Waiting", pointId: null, volume: null });
      expect(await api.getMigratedVolume(name)).toMatchObject({ state: "Frozen", waitingClones: 2 });
      await world.commit(name);
      const [point] = (await api.getMigratedVolume(name)).points;
      for (const clone of ["early", "frozen"]) {
        expect((await readyClone(clone)).pointId).toBe(point?.pointId);
      }
      expect(await api.getMigratedVolume(name)).toMatchObject({ state: "Available", waitingClones: 0 });
    });

    test("asked again it is the same clone, though latest has moved; another spec is refused", async () => {
      const name = await available();
      const spec = { migratedVolume: name, point: "latest" };
      const first = await api.putClone("copy", spec);
      await world.freeze(name);
      await world.commit(name);
      expect((await api.putClone("copy", spec)).pointId).toBe(first.pointId);
      await fails("NameTaken", api.putClone("copy", { ...spec, sizeBytes: 64 * mebibyte }));
    });

    test("an older point can be cloned while the newest is frozen", async () => {
      const name = await available();
      await world.freeze(name);
      await world.commit(name);
      const [older] = (await api.getMigratedVolume(name)).points;
      await world.freeze(name);
      const clone = await api.putClone("old", { migratedVolume: name, point: String(older?.pointId) });
      expect(clone).toMatchObject({ state: "Ready", pointId: older?.pointId });
    });

    test("one that expires goes with its volume when it was served and nobody who asked was told so", async () => {
      const name = await world.arrive();
      await world.freeze(name);
      const expiring = { migratedVolume: name, point: "latest", expires: true };
      for (const clone of ["left", "attached", "asked", "stays"]) {
        expect(await api.putClone(clone, expiring)).toMatchObject({ state: "Waiting", spec: expiring });
      }
      await api.putClone("stays", { migratedVolume: name, point: "latest" });
      await world.commit(name);
      for (const clone of ["left", "attached", "asked", "stays"]) await readyClone(clone);
      const detach = await world.attach("attached");
      expect((await api.putClone("asked", expiring)).state).toBe("Ready");
      expect((await api.putClone("at-once", expiring)).state).toBe("Ready");
      await world.outwaitClones();
      const left = await settled(
        "clone",
        "left",
        () => api.listClones(),
        ({ items }) => !items.some((clone) => clone.name === "left"),
      );
      expect(left.items.map((clone) => clone.name)).toEqual(["asked", "at-once", "attached", "stays"]);
      await fails("NotFound", api.getVolume("left"));
      await detach();
      expect((await api.getVolume("attached")).name).toBe("attached");
    });

    test("a clone whose volume is attached is not removed, and stays what it was", async () => {
      const name = await available();
      const clone = await api.putClone("copy", { migratedVolume: name, point: "latest" });
      const detach = await world.attach("copy");
      await fails("InUse", api.removeClone("copy"));
      expect(await api.getClone("copy")).toEqual(clone);
      await detach();
      await api.removeClone("copy");
      await fails("NotFound", api.getVolume("copy"));
    });

    test("a clone of what does not exist is refused", async () => {
      const name = await available();
      await fails("NotFound", api.putClone("copy", { migratedVolume: "nothing", point: "latest" }));
      await fails("PointGone", api.putClone("copy", { migratedVolume: name, point: "f".repeat(32) }));
    });

    test("a clone goes with its volume, a waiting one is withdrawn, and both twice", async () => {
      const name = await available();
      const clone = await api.putClone("copy", { migratedVolume: name, point: "latest" });
      await api.removeClone("copy");
      await api.removeClone("copy");
      await fails("NotFound", api.getVolume(String(clone.volume)));
      await world.freeze(name);
      await api.putClone("late", { migratedVolume: name, point: "latest" });
      await api.removeClone("late");
      await world.commit(name);
      await fails("NotFound", api.getClone("late"));
    });

    test("a frozen migrated volume is not removed, an available one is, and its clones live on", async () => {
      const name = await available();
      const clone = await api.putClone("copy", { migratedVolume: name, point: "latest" });
      await world.freeze(name);
      await fails("Frozen", api.removeMigratedVolume(name));
      await world.commit(name);
      await api.removeMigratedVolume(name);
      await api.removeMigratedVolume(name);
      await fails("NotFound", api.getMigratedVolume(name));
      expect((await api.getVolume(String(clone.volume))).sizeBytes).toBeGreaterThan(0);
    });
  }

  function changes() {
    test("a list's sequence is where the changes go on: nothing is missed, nothing comes twice", async () => {
      await api.putVolume("before", spec);
      const { sequence } = await api.listVolumes();
      const first = followed(sequence, (seen) => seen.some((change) => change.name === "live"));
      await api.putVolume("after", spec);
      await api.putVolume("live", spec);
      const seen = await first;
      expect(seen.map((change) => change.name)).toEqual(expect.arrayContaining(["after", "live"]));
      expect(seen.map((change) => change.name)).not.toContain("before");
      const numbers = seen.map((change) => change.sequence);
      expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    });

    test("a put that changes nothing is no change", async () => {
      await api.putVolume("data", spec);
      const { sequence } = await api.listVolumes();
      await api.putVolume("data", spec);
      await api.putVolume("other", spec);
      const seen = await followed(sequence, (changes) => changes.some((change) => change.name === "other"));
      expect(seen.filter((change) => change.name === "data")).toEqual([]);
    });

    test("one who comes from another time is told to list again", async () => {
      const seen = await followed(2 ** 40, (changes) => changes.length === 1);
      expect(seen).toMatchObject([{ kind: "resync" }]);
    });
  }

  async function pendingJob(name: string): Promise<JobSpec> {
    await api.putLocation("west", world.location);
    await settledLocation("west");
    await api.putVolume("data", spec);
    await api.putSnapshot("data", "s1");
    const job = { volume: "data", location: "west", snapshot: "s1" };
    await api.putJob(name, job);
    return job;
  }

  async function migratedOnce(): Promise<void> {
    await pendingJob("job-1");
    await world.succeedJob("job-1");
    expect((await api.getJob("job-1")).state).toBe("Succeeded");
  }

  async function available(): Promise<string> {
    const name = await world.arrive();
    await world.freeze(name);
    await world.commit(name);
    return name;
  }

  /** The first change stream entry after which `done` holds, with all before it. */
  async function followed(since: number, done: (seen: readonly Change[]) => boolean): Promise<Change[]> {
    const seen: Change[] = [];
    for await (const change of api.changes(since, ended.signal)) {
      seen.push(change);
      if (done(seen)) break;
    }
    return seen;
  }

  async function settledLocation(name: string) {
    return settled(
      "location",
      name,
      () => api.getLocation(name),
      (location) => location.probedAt !== null,
    );
  }

  async function readyClone(name: string): Promise<CloneView> {
    return settled(
      "clone",
      name,
      () => api.getClone(name),
      (clone) => clone.state === "Ready",
    );
  }

  /** Reads again at every change until `done` holds; a test's own time limit bounds it. */
  async function settled<T>(
    kind: Change["kind"],
    name: string,
    read: () => Promise<T>,
    done: (value: T) => boolean,
  ): Promise<T> {
    const { sequence } = await api.listVolumes();
    const value = await read();
    if (done(value)) return value;
    for await (const change of api.changes(sequence, ended.signal)) {
      if (change.kind !== kind || change.name !== name) continue;
      const now = await read();
      if (done(now)) return now;
    }
    throw new Error(`the change stream ended before ${kind} ${name} settled`);
  }

  async function until(name: string, done: (job: JobView) => boolean): Promise<void> {
    for await (const job of api.followJob(name, ended.signal)) if (done(job)) return;
    throw new Error(`job ${name} ended before it came to that`);
  }

  async function lastOf(name: string): Promise<JobView> {
    let last: JobView | undefined;
    for await (const job of api.followJob(name, ended.signal)) last = job;
    if (last === undefined) throw new Error(`following job ${name} gave nothing`);
    return last;
  }
}

/** Expects a rejection with this code, and nothing else. */
async function fails(code: ErrorCode, attempt: Promise<unknown>): Promise<void> {
  const error = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(LongshoreError);
  expect(error).toMatchObject({ code });
}
