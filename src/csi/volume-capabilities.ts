// How a volume is to be used: as a file system or as a raw block device, always from one node at a time.
import { type FileSystemType, fileSystemTypes, isFileSystemType, usualFileSystem } from "../host/file-systems.ts";
import type { AccessMode, VolumeCapability } from "./csi-messages.ts";
import { CsiError } from "./status.ts";

/** The mode is one of Kubernetes' volume modes. */
export type VolumeUse =
  | {
      readonly mode: "Filesystem";
      readonly fileSystem: FileSystemType;
      /** It was named, as by the class. Otherwise it is the usual one, which gives way to what the volume is made of. */
      readonly isNamed: boolean;
    }
  | { readonly mode: "Block" };

/** The access modes that a volume can be used in. */
export const oneNodeModes: readonly AccessMode[] = [
  "SINGLE_NODE_WRITER",
  "SINGLE_NODE_READER_ONLY",
  "SINGLE_NODE_SINGLE_WRITER",
  "SINGLE_NODE_MULTI_WRITER",
];

/** The one use that fits all capabilities. Throws INVALID_ARGUMENT, naming what is not supported or missing. */
export function useOf(capabilities: readonly VolumeCapability[]): VolumeUse {
  const [first, ...others] = capabilities.map(useOfOne);
  if (first === undefined) throw invalid("volume_capabilities is empty: say how the volume is to be used");
  const other = others.find((use) => textOf(use) !== textOf(first));
  if (other === undefined) return first;
  throw invalid(`one volume cannot be used as ${textOf(first)} and as ${textOf(other)}`);
}

function useOfOne(capability: VolumeCapability): VolumeUse {
  checkForm(capability);
  const mode = capability.accessMode?.mode ?? "UNKNOWN";
  if (!oneNodeModes.includes(mode)) {
    throw invalid(`access mode ${mode} is not supported: a volume is used from one node at a time (ReadWriteOnce)`);
  }
  if (capability.mount === undefined) return { mode: "Block" };
  const { fsType } = capability.mount;
  const fileSystem = fsType || usualFileSystem;
  if (isFileSystemType(fileSystem)) return { mode: "Filesystem", fileSystem, isNamed: fsType !== "" };
  throw invalid(`csi.storage.k8s.io/fstype: "${fileSystem}" is not supported; use ${fileSystemTypes.join(", ")}`);
}

function checkForm({ accessMode, block, mount }: VolumeCapability): void {
  if (block === undefined && mount === undefined) {
    throw invalid("a volume capability without access type: say whether it is mounted or a block device");
  }
  if (accessMode === null || accessMode.mode === "UNKNOWN") throw invalid("a volume capability without access mode");
}

function textOf(use: VolumeUse): string {
  return use.mode === "Block" ? "a block device" : `a mounted ${use.fileSystem}`;
}

function invalid(message: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", message);
}
