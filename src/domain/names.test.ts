import { expect, test } from "@jest/globals";
import fc from "fast-check";
import {
  agentJobName,
  claimOfVolumeName,
  cloneSnapshotName,
  contentNameOf,
  demandSnapshotName,
  dueOfSnapshot,
  groupJobNameOf,
  groupNameOf,
  isCloneSnapshot,
  isDemandSnapshot,
  jobNameOf,
  keyOfAgentJob,
  labelValueOf,
  pointOfContent,
  snapshotNameAt,
  volumeNameOfClaim,
} from "./names.ts";

const pointId = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";

const kubernetesName = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

test("a snapshot's name tells its due time, to the millisecond", () => {
  expect(snapshotNameAt(Date.UTC(2026, 2, 1, 12, 0, 0, 7))).toBe("auto-20260301t120000.007z");
  fc.assert(fc.property(fc.integer({ min: 0, max: 4e12 }), (dueMs) => dueOfSnapshot(snapshotNameAt(dueMs)) === dueMs));
});

test("the snapshot of a user's job is told from scheduled ones", () => {
  const name = demandSnapshotName("3c8e2f0a-0000-4000-8000-000000000001");
  expect([isDemandSnapshot(name), dueOfSnapshot(name)]).toEqual([true, undefined]);
  expect(isDemandSnapshot(snapshotNameAt(0))).toBe(false);
});

test("the snapshot that a volume is cloned by is told from all others", () => {
  const name = cloneSnapshotName("3c8e2f0a-0000-4000-8000-000000000001");
  expect([isCloneSnapshot(name), isDemandSnapshot(name), dueOfSnapshot(name)]).toEqual([true, false, undefined]);
  for (const other of [snapshotNameAt(0), demandSnapshotName("3c8e2f0a-0000-4000-8000-000000000001"), "clone-mine"]) {
    expect([other, isCloneSnapshot(other)]).toEqual([other, false]);
  }
});

test("an agent's job tells which MigrationJob it was made for, also that of one volume of a group", () => {
  const metadata = { name: "pv1-berlin.g7", uid: "3c8e2f0a-0000-4000-8000-000000000001" };
  const name = agentJobName({ metadata });
  expect([keyOfAgentJob(name), keyOfAgentJob(`${name}.12`)]).toEqual([metadata, metadata]);
  expect([keyOfAgentJob("by-hand"), keyOfAgentJob(metadata.uid)]).toEqual([undefined, undefined]);
});

test("a job's short name is plain when nothing can be mistaken", () => {
  expect(jobNameOf({ volume: "pv1", location: "berlin", generation: 7, pointId })).toBe("pv1-berlin-g7-d7e8f9");
});

test("names that would be the same when joined differ", () => {
  expect(jobNameOf({ volume: "a-b", location: "c", generation: 1, pointId })).not.toBe(
    jobNameOf({ volume: "a", location: "b-c", generation: 1, pointId }),
  );
});

test("two points of one generation have jobs of their own", () => {
  const job = { volume: "pv1", location: "berlin", generation: 7 };
  expect(jobNameOf({ ...job, pointId })).not.toBe(jobNameOf({ ...job, pointId: pointId.replace("f9", "ff") }));
});

test("long names are shortened, keep the generation, and stay apart", () => {
  const volume = `pvc-${"0123456789".repeat(20)}`;
  const name = jobNameOf({ volume, location: "berlin", generation: 12, pointId });
  expect(name).toMatch(/^pvc-0123.*-g12-d7e8f9-[0-9a-f]{10}$/);
  expect(name).not.toBe(jobNameOf({ volume: `${volume}x`, location: "berlin", generation: 12, pointId }));
});

const part = fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?$/);

test("every name fits into a label, is a Kubernetes name, and differs for different parts", () => {
  fc.assert(
    fc.property(part, part, fc.nat(), part, part, fc.nat(), (volume, location, generation, volume2, location2, g2) => {
      const name = jobNameOf({ volume, location, generation, pointId });
      expect(name).toMatch(kubernetesName);
      expect(name.length).toBeLessThanOrEqual(63);
      if (volume !== volume2 || location !== location2 || generation !== g2) {
        expect(name).not.toBe(jobNameOf({ volume: volume2, location: location2, generation: g2, pointId }));
      }
    }),
  );
});

test("as a label's value a name is itself where it fits, and otherwise still its own", () => {
  expect(labelValueOf("pv1")).toBe("pv1");
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z0-9][a-z0-9.-]{60,120}[a-z0-9]$/), (name) => {
      expect(labelValueOf(name)).toMatch(/^[a-z0-9][a-z0-9.-]{0,61}[a-z0-9]$/);
      expect(labelValueOf(name)).not.toBe(labelValueOf(`${name}x`));
    }),
  );
});

test.each([
  ["shop", "orders", "shop.orders"],
  ["shop", "a.b-c", "shop.a.b-c"],
  ["shop", "Orders", /^shop\.\.orders-[0-9a-f]{10}$/],
  ["shop", "or_ders", /^shop\.\.or-ders-[0-9a-f]{10}$/],
  ["n".repeat(63), "g".repeat(63), /^n{63}\.\.g{44}-[0-9a-f]{10}$/],
])("group %s/%s is %s to the agents", (namespace, name, expected) => {
  expect(groupNameOf({ namespace, name })).toMatch(expected instanceof RegExp ? expected : new RegExp(`^${expected}$`));
});

const namespaceName = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
const labelValue = fc.stringMatching(/^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/);
const groupId = fc.record({ namespace: namespaceName, name: labelValue });

test("every group has a name that agents take and no other group has, and jobs that Kubernetes takes", () => {
  fc.assert(
    fc.property(groupId, groupId, labelValue, (group, other, location) => {
      expect(groupNameOf(group)).toMatch(/^[a-z0-9]([a-z0-9.-]{0,118}[a-z0-9])?$/);
      const job = groupJobNameOf({ group, location: location.toLowerCase(), groupPoint: pointId });
      expect(job.length).toBeLessThanOrEqual(63);
      expect(job).toMatch(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/);
      if (group.namespace === other.namespace && group.name === other.name) return;
      expect(groupNameOf(group)).not.toBe(groupNameOf(other));
      expect(job).not.toBe(groupJobNameOf({ group: other, location: location.toLowerCase(), groupPoint: pointId }));
    }),
  );
});

test("names that differ only in case, or in what agents do not take, are of different groups", () => {
  const names = ["db", "DB", "Db", "d_b", "d-b", "d.b"].map((name) => groupNameOf({ namespace: "shop", name }));
  expect(new Set(names).size).toBe(6);
});

test("what csi-provisioner asks for on behalf of a claim is known by the claim's UID", () => {
  expect(volumeNameOfClaim("6f2c1a58-0000-4000-8000-000000000001")).toBe("pvc-6f2c1a58-0000-4000-8000-000000000001");
  expect(claimOfVolumeName("pvc-6f2c")).toBe("6f2c");
  expect(claimOfVolumeName("data-west")).toBeUndefined();
});

const migratedName = fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,118}[a-z0-9])?$/);
const pointHandle = fc.record({
  kind: fc.constant("point" as const),
  migratedVolume: migratedName,
  point: fc.oneof(fc.constant("latest"), fc.stringMatching(/^[0-9a-f]{32}$/)),
});

test("the content of each point has a name of its own, which tells what it stands for", () => {
  fc.assert(
    fc.property(pointHandle, (handle) => {
      expect(contentNameOf(handle).length).toBeLessThanOrEqual(253);
      expect(pointOfContent(contentNameOf(handle))).toEqual(handle);
    }),
  );
});

test.each(["", "snapcontent-1", "longshore", "longshore-", "longshore.latest.east-vol-1", "longshore.0123.east"])(
  "a content named %j is not ours",
  (name) => {
    expect(pointOfContent(name)).toBeUndefined();
  },
);
