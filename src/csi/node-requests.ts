// What the calls of the node's service ask for, checked: every mistake is told with the field it is in, and changes nothing.
import { isVolumeHandle } from "../domain/handles.ts";
import { type FileSystemType, fileSystemTypes, isFileSystemType } from "../host/file-systems.ts";
import type { MountVolume, VolumeCapability } from "./csi-messages.ts";
import { CsiError } from "./status.ts";
import { oneNodeModes } from "./volume-capabilities.ts";

/** How a volume is to be used. */
export type Wanted = {
  /** Nobody is to write through this use. */
  readonly isReadOnly: boolean;
  /** At one place only, whoever uses it there. */
  readonly isForOne: boolean;
} & (
  | { readonly kind: "block" }
  | {
      readonly kind: "fileSystem";
      /** `undefined`: whatever is there, else the usual one. */
      readonly type: FileSystemType | undefined;
      readonly flags: readonly string[];
    }
);

export type WantedFileSystem = Extract<Wanted, { kind: "fileSystem" }>;

/** Throws INVALID_ARGUMENT for a field that was not sent. */
export function required(field: string, value: string): string {
  if (value === "") throw invalid(field, "is missing");
  return value;
}

/** The volume's name at the agents. What no volume can be called is no mistake of form: there just is no such volume. */
export function volumeNamed(volumeId: string): string {
  if (!isVolumeHandle(volumeId)) throw new CsiError("NOT_FOUND", `there is no volume ${volumeId}`);
  return volumeId;
}

/** A place where the kubelet wants something mounted. */
export function placeIn(host: { reaches(path: string): boolean }, field: string, path: string): string {
  if (host.reaches(required(field, path))) return path;
  const text = `${path} is no plain absolute path below the kubelet's folder (--kubelet-dir), so no pod would see it`;
  throw invalid(field, text);
}

/** Throws INVALID_ARGUMENT for what is missing or not known, FAILED_PRECONDITION for what no volume can do. */
export function wantedBy(capability: VolumeCapability | null): Wanted {
  if (capability === null) throw invalid("volume_capability", "is missing");
  const { accessMode, block, mount } = capability;
  const mode = accessMode?.mode ?? "UNKNOWN";
  if (mode === "UNKNOWN") throw invalid("volume_capability.access_mode", "is missing");
  if (!oneNodeModes.includes(mode)) {
    const text = `access mode ${mode} is not possible: a volume is used on the one node that it is on (ReadWriteOnce)`;
    throw new CsiError("FAILED_PRECONDITION", text);
  }
  const isReadOnly = mode === "SINGLE_NODE_READER_ONLY";
  const isForOne = mode === "SINGLE_NODE_SINGLE_WRITER";
  if (mount !== undefined) return mountWanted(mount, { isReadOnly, isForOne });
  if (block !== undefined) return { kind: "block", isReadOnly, isForOne };
  throw invalid("volume_capability.access_type", "is missing: say whether it is mounted or a block device");
}

function mountWanted(
  { fsType, mountFlags, volumeMountGroup }: MountVolume,
  { isReadOnly, isForOne }: Pick<Wanted, "isReadOnly" | "isForOne">,
): WantedFileSystem {
  if (volumeMountGroup !== "") {
    throw invalid("volume_capability.mount.volume_mount_group", "is not supported; the kubelet sets fsGroup by itself");
  }
  if (fsType !== "" && !isFileSystemType(fsType)) {
    throw invalid("volume_capability.mount.fs_type", `${fsType} is not supported; use ${fileSystemTypes.join(", ")}`);
  }
  const flags = mountFlags.flatMap((flag) => flag.split(",")).filter((flag) => flag !== "");
  const foreign = flags.find((flag) => changesWhatIsMounted.test(flag));
  if (foreign !== undefined) {
    const text = `${foreign} would change what is mounted, or where; leave it out of mountOptions`;
    throw invalid("volume_capability.mount.mount_flags", text);
  }
  return {
    kind: "fileSystem",
    type: fsType === "" ? undefined : fsType,
    flags: flags.filter((flag) => flag !== "ro" && flag !== "rw"),
    isReadOnly: isReadOnly || flags.includes("ro"),
    isForOne,
  };
}

/** These are for mount(8) itself: with them it would mount something else, or in another way than can be told from outside. */
const changesWhatIsMounted =
  /^(?:r?bind|move|remount|loop|offset|sizelimit|make-.*|r?(?:shared|slave|private|unbindable)|x-.*)(?:=.*)?$/i;

function invalid(field: string, what: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", `${field} ${what}`);
}
