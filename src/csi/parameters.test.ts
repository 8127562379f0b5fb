import { expect, test } from "@jest/globals";
import { checkSnapshotParameters, checkVolumeParameters, metadataOf, refuseMutableParameters } from "./parameters.ts";

const ofProvisioner = {
  "csi.storage.k8s.io/pvc/namespace": "shop",
  "csi.storage.k8s.io/pvc/name": "db",
  "csi.storage.k8s.io/pv/name": "pvc-1",
};

test("a migrating class's parameters and the provisioner's are taken", () => {
  const ofClass = { migrationEnable: "true", migrationLocations: "a,b", schedulePolicy: "hourly", allowOptOut: "true" };
  checkVolumeParameters({ ...ofClass, ...ofProvisioner, allowedSchedules: "daily" });
  checkVolumeParameters({ "csi.storage.k8s.io/fstype": "xfs" });
  checkVolumeParameters({});
});

test.each<[Record<string, string>, string]>([
  [{ type: "ssd" }, "parameter type is not known"],
  [{ migrationEnabled: "true" }, "parameter migrationEnabled is not known"],
  [{ "csi.storage.k8s.io/pvc/uid": "1" }, "parameter csi.storage.k8s.io/pvc/uid is not known"],
  [{ migrationEnable: "yes" }, "migrationEnable"],
  [{ migrationLocations: "a b" }, "migrationLocations"],
  [{ schedulePolicy: "UPPER" }, "schedulePolicy"],
  [{ allowOptOut: "1" }, "allowOptOut"],
  [{ allowedSchedules: "a,B" }, "allowedSchedules"],
])("the parameters %j are refused by name", (parameters, message) => {
  expect(() => checkVolumeParameters(parameters)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringContaining(message) }),
  );
});

test("all that is wrong is told at once", () => {
  expect(() => checkVolumeParameters({ type: "ssd", allowOptOut: "1" })).toThrow(/type[\s\S]*allowOptOut/);
});

test("a snapshot class has no parameters but the sidecar's", () => {
  checkSnapshotParameters({ "csi.storage.k8s.io/volumesnapshot/name": "s" });
  expect(() => checkSnapshotParameters({ retention: "1h" })).toThrow("parameter retention is not known; leave it out");
});

test("mutable parameters are refused by name", () => {
  refuseMutableParameters({});
  expect(() => refuseMutableParameters({ iops: "100" })).toThrow(/mutable parameters are not supported: iops/);
});

test("the metadata of a volume says whose it is and how it is used", () => {
  const mounted = { mode: "Filesystem", fileSystem: "xfs", isNamed: true } as const;
  expect(metadataOf(ofProvisioner, mounted)).toEqual({
    "pvc.namespace": "shop",
    "pvc.name": "db",
    "pv.name": "pvc-1",
    volumeMode: "Filesystem",
    fsType: "xfs",
  });
  expect(metadataOf({}, { mode: "Block" })).toEqual({ volumeMode: "Block" });
});
