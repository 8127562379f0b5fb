import { expect, test } from "@jest/globals";
import type { AccessMode, VolumeCapability } from "./csi-messages.ts";
import { placeIn, required, volumeNamed, wantedBy } from "./node-requests.ts";

const mount = { fsType: "", mountFlags: [], volumeMountGroup: "" };
const writer = { mode: "SINGLE_NODE_WRITER" } as const;

/** The mode, what is asked for, what is understood. */
const understood: readonly (readonly [AccessMode, Partial<VolumeCapability>, object])[] = [
  ["SINGLE_NODE_WRITER", { mount }, { kind: "fileSystem", type: undefined, flags: [], isReadOnly: false }],
  ["SINGLE_NODE_WRITER", { mount }, { isForOne: false }],
  ["SINGLE_NODE_WRITER", { mount: { ...mount, fsType: "xfs" } }, { type: "xfs" }],
  ["SINGLE_NODE_WRITER", { block: {} }, { kind: "block", isReadOnly: false, isForOne: false }],
  ["SINGLE_NODE_SINGLE_WRITER", { block: {} }, { kind: "block", isForOne: true }],
  ["SINGLE_NODE_MULTI_WRITER", { mount }, { isForOne: false }],
  ["SINGLE_NODE_READER_ONLY", { mount }, { isReadOnly: true }],
  ["SINGLE_NODE_READER_ONLY", { block: {} }, { isReadOnly: true }],
  ["SINGLE_NODE_WRITER", { mount: { ...mount, mountFlags: ["ro", "a"] } }, { isReadOnly: true, flags: ["a"] }],
  ["SINGLE_NODE_READER_ONLY", { mount: { ...mount, mountFlags: ["rw"] } }, { isReadOnly: true, flags: [] }],
  ["SINGLE_NODE_WRITER", { mount: { ...mount, mountFlags: ["a,b=1", "", "c"] } }, { flags: ["a", "b=1", "c"] }],
];

test.each(understood)("%s with %j", (mode, access, expected) => {
  expect(wantedBy({ accessMode: { mode }, ...access })).toMatchObject(expected);
});

/** What is asked for, the code, a part of what is said about it. */
const refused: readonly (readonly [VolumeCapability | null, string, string])[] = [
  [null, "INVALID_ARGUMENT", "volume_capability is missing"],
  [{ accessMode: null, mount }, "INVALID_ARGUMENT", "volume_capability.access_mode is missing"],
  [{ accessMode: { mode: "UNKNOWN" }, mount }, "INVALID_ARGUMENT", "volume_capability.access_mode is missing"],
  [{ accessMode: writer }, "INVALID_ARGUMENT", "volume_capability.access_type is missing"],
  [{ accessMode: { mode: "MULTI_NODE_MULTI_WRITER" }, mount }, "FAILED_PRECONDITION", "MULTI_NODE_MULTI_WRITER"],
  [{ accessMode: { mode: "MULTI_NODE_SINGLE_WRITER" }, mount }, "FAILED_PRECONDITION", "on the one node"],
  [{ accessMode: { mode: "MULTI_NODE_READER_ONLY" }, mount }, "FAILED_PRECONDITION", "on the one node"],
  [{ accessMode: { mode: 99 }, mount }, "FAILED_PRECONDITION", "access mode 99"],
  [{ accessMode: writer, mount: { ...mount, fsType: "ntfs" } }, "INVALID_ARGUMENT", "mount.fs_type ntfs is not"],
  [{ accessMode: writer, mount: { ...mount, volumeMountGroup: "7" } }, "INVALID_ARGUMENT", "volume_mount_group"],
];

test.each(refused)("%j is %s", (capability, code, message) => {
  const failure = expect.objectContaining({ code, message: expect.stringContaining(message) });
  expect(() => wantedBy(capability)).toThrow(failure);
});

test.each([
  "loop",
  "loop=/dev/loop7",
  "bind",
  "rbind",
  "remount",
  "move",
  "offset=4096",
  "sizelimit=1",
  "make-shared",
  "rprivate",
  "X-mount.mkdir",
  "x-systemd.automount",
])("the mount flag %s would mount something else, and is refused by name", (flag) => {
  const asked = { accessMode: writer, mount: { ...mount, mountFlags: [`noatime,${flag}`] } };
  const message = expect.stringMatching(`^volume_capability.mount.mount_flags ${flag} `);
  expect(() => wantedBy(asked)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT", message }));
});

const harmless = ["nouuid", "discard", "sharecache", "bindings", "loopback", "commit=30"];

test.each(harmless)("the mount flag %s is let through", (flag) => {
  const asked = { accessMode: writer, mount: { ...mount, mountFlags: [flag] } };
  expect(wantedBy(asked)).toMatchObject({ flags: [flag] });
});

test("what is missing is told by its field", () => {
  expect(() => required("target_path", "")).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", message: "target_path is missing" }),
  );
  expect(required("target_path", "/a")).toBe("/a");
});

test.each(["pvc-1A2B", "../etc", "a/b", ""])("there is no volume called %p", (volumeId) => {
  expect(() => volumeNamed(volumeId)).toThrow(expect.objectContaining({ code: "NOT_FOUND" }));
});

test("a path that no pod would see is refused, by its field", () => {
  const host = { reaches: (path: string) => path.startsWith("/kubelet/") };
  expect(placeIn(host, "target_path", "/kubelet/a")).toBe("/kubelet/a");
  expect(() => placeIn(host, "target_path", "")).toThrow("target_path is missing");
  expect(() => placeIn(host, "target_path", "/tmp/a")).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringContaining("target_path /tmp/a") }),
  );
});
