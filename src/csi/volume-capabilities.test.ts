import { expect, test } from "@jest/globals";
import { block, mounted } from "../../test/fakes/csi-requests.ts";
import type { AccessMode, VolumeCapability } from "./csi-messages.ts";
import { useOf } from "./volume-capabilities.ts";

const inMode = (mode: AccessMode): VolumeCapability => ({ ...mounted, accessMode: { mode } });
const withFileSystem = (fsType: string): VolumeCapability => ({
  ...mounted,
  mount: { fsType, mountFlags: ["noatime"], volumeMountGroup: "" },
});

test.each<[string, VolumeCapability[], object]>([
  ["a mount without a file system", [mounted], { mode: "Filesystem", fileSystem: "ext4", isNamed: false }],
  ["a mount of xfs", [withFileSystem("xfs")], { mode: "Filesystem", fileSystem: "xfs", isNamed: true }],
  ["a mount of btrfs", [withFileSystem("btrfs")], { mode: "Filesystem", fileSystem: "btrfs", isNamed: true }],
  ["a block device", [block], { mode: "Block" }],
  ["one writer", [inMode("SINGLE_NODE_SINGLE_WRITER")], { mode: "Filesystem", fileSystem: "ext4", isNamed: false }],
  [
    "one node, several pods",
    [inMode("SINGLE_NODE_MULTI_WRITER")],
    { mode: "Filesystem", fileSystem: "ext4", isNamed: false },
  ],
  [
    "a reader",
    [inMode("SINGLE_NODE_READER_ONLY"), mounted],
    { mode: "Filesystem", fileSystem: "ext4", isNamed: false },
  ],
])("%s is supported", (_, capabilities, use) => {
  expect(useOf(capabilities)).toEqual(use);
});

test.each<[string, VolumeCapability[], string]>([
  ["nothing", [], "volume_capabilities is empty"],
  ["several nodes", [inMode("MULTI_NODE_MULTI_WRITER")], "MULTI_NODE_MULTI_WRITER"],
  ["several readers", [mounted, inMode("MULTI_NODE_READER_ONLY")], "MULTI_NODE_READER_ONLY"],
  ["one writer, several readers", [inMode("MULTI_NODE_SINGLE_WRITER")], "MULTI_NODE_SINGLE_WRITER"],
  ["a mode of a later revision", [inMode(42)], "42"],
  ["no mode", [inMode("UNKNOWN")], "without access mode"],
  ["no mode at all", [{ ...mounted, accessMode: null }], "without access mode"],
  ["no type", [{ accessMode: { mode: "SINGLE_NODE_WRITER" } }], "without access type"],
  ["another file system", [withFileSystem("ntfs")], 'csi.storage.k8s.io/fstype: "ntfs"'],
  ["both types", [mounted, block], "as a mounted ext4 and as a block device"],
])("%s is refused by name", (_, capabilities, message) => {
  expect(() => useOf(capabilities)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringContaining(message) }),
  );
});
