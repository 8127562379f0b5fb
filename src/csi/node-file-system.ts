// What to do with what is on a device before it is mounted. Pure. The rule that everything else gives way to: data is never formatted,
// and what cannot be told is taken for data.
import { renderBytes } from "../domain/quantity.ts";
import type { Content } from "../host/content.ts";
import { type FileSystemType, isFileSystemType, leastFileSystemBytes, usualFileSystem } from "../host/file-systems.ts";

export interface DeviceFacts {
  readonly content: Content;
  readonly sizeBytes: number;
  /** `undefined`: any will do. */
  readonly wanted: FileSystemType | undefined;
  readonly isReadOnly: boolean;
  /** It was made of another volume, here or in another cluster. */
  readonly isClone: boolean;
  /** A file system was being made on it, and nobody has used the device since. */
  readonly isHalfMade: boolean;
}

export type FileSystemPlan =
  | { readonly kind: "use"; readonly type: FileSystemType }
  | { readonly kind: "format"; readonly type: FileSystemType }
  /** With what is there and what can be done, for people. */
  | { readonly kind: "refuse"; readonly why: string };

/** Decides what a volume needs before it can be mounted. */
export function planFileSystem(facts: DeviceFacts): FileSystemPlan {
  const { content, wanted, isHalfMade } = facts;
  // Whatever it looks like by now, nobody has ever written to it.
  if (isHalfMade || content.kind === "blank") return planNew(facts);
  if (content.kind === "other") {
    return refuse(`it holds ${content.what}, which is not touched; use it as a block volume, or make a new volume`);
  }
  const { type } = content;
  if (wanted !== undefined && type !== wanted) {
    return refuse(`it holds ${type}, and ${wanted} was asked for; ${anew(type)}`);
  }
  if (isFileSystemType(type)) return { kind: "use", type };
  return refuse(`it holds ${type}, which this driver does not mount; use it as a block volume, or make a new volume`);
}

function planNew({ wanted = usualFileSystem, sizeBytes, isReadOnly, isClone }: DeviceFacts): FileSystemPlan {
  // Even an origin that looked blank may have held data that no tool knows.
  if (isClone) {
    return refuse("it is a clone, which is never formatted, and its origin had no file system then; make a new volume");
  }
  if (isReadOnly)
    return refuse("it has no file system yet, and is to be mounted for reading only; mount it for writing first");
  const least = leastFileSystemBytes[wanted];
  if (sizeBytes >= least) return { kind: "format", type: wanted };
  const needed = `${renderBytes(least)} (${least} bytes)`;
  const advice = sizeBytes >= leastFileSystemBytes.ext4 ? `expand it, or ${anew("ext4")}` : "expand it";
  return refuse(`${wanted} needs at least ${needed}, and it has ${sizeBytes}; ${advice}`);
}

/** What a PersistentVolume asks for cannot be changed; a class that names nothing has the driver take what is there. */
function anew(type: string): string {
  return `make the claim anew in a class that names ${type}, or none (csi.storage.k8s.io/fstype)`;
}

function refuse(why: string): FileSystemPlan {
  return { kind: "refuse", why };
}
