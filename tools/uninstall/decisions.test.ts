import { describe, expect, test } from "@jest/globals";
import {
  attachedImages,
  isBoundTo,
  isReady,
  orphaned,
  ourClaims,
  ourSnapshots,
  type Pod,
  podsUsing,
  type SnapshotContent,
  snapshotOf,
  someOf,
  type Volume,
  without,
} from "./decisions.ts";

const ours = "csi.longshore.dev";
const volume = (name: string, driver = ours): Volume => ({ metadata: { name }, spec: { csi: { driver } } });
const claim = (name: string, volumeName?: string) => ({
  metadata: { namespace: "shop", name },
  spec: { ...(volumeName !== undefined && { volumeName }) },
});

const volumes = [volume("pv-1"), volume("pv-2"), volume("pv-other", "other.example"), { metadata: { name: "pv-nfs" } }];
const claims = [claim("data", "pv-1"), claim("db-0-scratch", "pv-2"), claim("files", "pv-other"), claim("waiting")];

test("claims are ours by the driver of their volume; one that waits has none", () => {
  expect(ourClaims(claims, volumes).map(({ metadata }) => metadata.name)).toEqual(["data", "db-0-scratch"]);
});

describe("a pod uses our volumes", () => {
  const pod = (volumesOfPod: NonNullable<Pod["spec"]>["volumes"], phase = "Running", namespace = "shop"): Pod => ({
    metadata: { namespace, name: "db-0" },
    spec: { ...(volumesOfPod !== undefined && { volumes: volumesOfPod }) },
    status: { phase },
  });
  const data = { name: "a", persistentVolumeClaim: { claimName: "data" } };
  const files = { name: "b", persistentVolumeClaim: { claimName: "files" } };
  const rows: [what: string, pod: Pod, told: string[]][] = [
    ["by a claim", pod([data]), ["shop/db-0 (claim data)"]],
    ["although it has not started", pod([data], "Pending"), ["shop/db-0 (claim data)"]],
    ["by an ephemeral volume", pod([{ name: "scratch", ephemeral: {} }]), ["shop/db-0 (claim db-0-scratch)"]],
    ["by several", pod([data, { name: "scratch", ephemeral: {} }]), ["shop/db-0 (claims data, db-0-scratch)"]],
    ["not by another driver's", pod([files]), []],
    ["not by a claim of that name elsewhere", pod([data], "Running", "other"), []],
    ["not when it has ended", pod([data], "Succeeded"), []],
    ["not without volumes", pod(undefined), []],
  ];
  test.each(rows)("%s", (_, seen, told) => {
    expect(podsUsing([seen], ourClaims(claims, volumes))).toEqual(told);
  });
});

test("a pod is ready by its condition", () => {
  const metadata = { name: "a" };
  const pod = (status: string): Pod => ({ metadata, status: { conditions: [{ type: "Ready", status }] } });
  expect([pod("True"), pod("False"), { metadata }].map(isReady)).toEqual([true, false, false]);
});

test("snapshots of our driver are the operator's by their label, and users' otherwise", () => {
  const content = (name: string, driver: string, labels: Record<string, string> = {}): SnapshotContent => ({
    metadata: { name, labels },
    spec: { driver, volumeSnapshotRef: { namespace: "shop", name: `of-${name}` } },
  });
  const managed = { "app.kubernetes.io/managed-by": "longshore" };
  const contents = [content("published", ours, managed), content("taken", ours), content("foreign", "other.example")];
  const { published, users } = ourSnapshots(contents);
  expect([published.map(snapshotOf), users.map(snapshotOf)]).toEqual([["shop/of-published"], ["shop/of-taken"]]);
});

test("a snapshot goes with its content, and another one of the same name does not", () => {
  const metadata = { namespace: "shop", name: "books" };
  const contents = [{ metadata: { name: "longshore-1" } }];
  const published = { metadata, spec: { source: { volumeSnapshotContentName: "longshore-1" } } };
  const taken = { metadata, spec: { source: {} }, status: { boundVolumeSnapshotContentName: "longshore-1" } };
  const another = { metadata, spec: { source: {} }, status: { boundVolumeSnapshotContentName: "snapcontent-7" } };
  const group = { metadata, spec: { source: {} }, status: { boundVolumeGroupSnapshotContentName: "longshore-1" } };
  const bound = [published, taken, another, group, { metadata }].filter((one) => isBoundTo(one, contents));
  expect(bound).toEqual([published, taken, group]);
});

describe("finalizers", () => {
  const rows: [on: keyof typeof orphaned, finalizers: string[], kept: string[] | undefined][] = [
    ["own", ["longshore.dev/data", "users.example/keep"], ["users.example/keep"]],
    ["own", ["users.example/keep"], undefined],
    ["own", [], undefined],
    [
      "volume",
      ["kubernetes.io/pv-protection", "external-provisioner.volume.kubernetes.io/finalizer"],
      ["kubernetes.io/pv-protection"],
    ],
    ["claim", ["provisioner.storage.kubernetes.io/cloning-protection"], []],
    ["claim", ["kubernetes.io/pvc-protection"], undefined],
    ["snapshot", ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"], []],
    ["snapshot", ["groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection"], []],
  ];
  test.each(rows)("on %s: of %j, %j stay", (on, finalizers, kept) => {
    expect(without({ metadata: { name: "a", finalizers } }, orphaned[on])).toEqual(kept);
  });
});

test("loop devices on images of ours are told, those on other files are not", () => {
  const listing = `/dev/loop0 /var/lib/longshore/volumes/4f0c/live.img
/dev/loop1 /var/lib/snapd/snaps/core.snap
  /dev/loop12   /srv/my data/volumes/4f0c/points/ab12.img
/dev/loop13 /volumes/5e1d/live.img
`;
  expect(attachedImages(listing)).toEqual([
    "/dev/loop0 on /var/lib/longshore/volumes/4f0c/live.img",
    "/dev/loop12 on /srv/my data/volumes/4f0c/points/ab12.img",
    "/dev/loop13 on /volumes/5e1d/live.img",
  ]);
  expect(attachedImages("")).toEqual([]);
});

test("of many names a few are shown", () => {
  expect(someOf(["a", "b", "c"], 2)).toBe("\n  a\n  b\n  and 1 more");
  expect(someOf(["a"])).toBe("\n  a");
});
