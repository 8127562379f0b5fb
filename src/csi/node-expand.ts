// A volume that has become larger: its device takes up the image, its file system the device.
import { type Growth, isFileSystemType } from "../host/file-systems.ts";
import type { Device } from "../host/loop-devices.ts";
import type { Mounted } from "../host/mounts.ts";
import { checkMounted, type NodeParts, stagedVolume } from "./node-parts.ts";
import { CsiError } from "./status.ts";

export interface ExpandRequest {
  readonly volume: string;
  /** Where it may be mounted, the staging path first. */
  readonly paths: readonly string[];
  readonly requiredBytes: number;
  /** `undefined`: as what is mounted tells. */
  readonly isBlock: boolean | undefined;
}

/** Returns how large the volume is now. Large enough already is success. */
export async function expand(parts: NodeParts, request: ExpandRequest): Promise<number> {
  const { host } = parts;
  const { volume, requiredBytes, isBlock } = request;
  const staged = await stagedVolume(parts, volume);
  if (staged === undefined) throw new CsiError("NOT_FOUND", `volume ${volume} is not staged on this node`);
  const device = await host.resize(staged.device);
  if (device.sizeBytes < requiredBytes) {
    const text = `volume ${volume} has ${device.sizeBytes} bytes, not the ${requiredBytes} asked for; expand it first`;
    throw new CsiError("OUT_OF_RANGE", text);
  }
  if (isBlock === true) return device.sizeBytes;
  const mounted = await mountedAt(parts, request, device);
  if (mounted.type !== "block") await growMounted(parts, { volume, device, mounted });
  return device.sizeBytes;
}

async function mountedAt({ host }: NodeParts, { volume, paths }: ExpandRequest, device: Device): Promise<Mounted> {
  for (const path of paths) {
    const mounted = await host.mountAt(path);
    if (mounted === undefined) continue;
    checkMounted(volume, { device }, mounted);
    return mounted;
  }
  throw new CsiError("NOT_FOUND", `volume ${volume} is not mounted at ${paths.join(" or ") || "the path given"}`);
}

/**
 * The kubelet takes FAILED_PRECONDITION for "not while it is in use": it does not try again on this node until the volume is staged
 * anew (which grows it), mounts it all the same for other pods, and keeps showing that the expansion is not done. Any other failure it
 * would repeat for ever, in vain, and fail the mounts of later pods for it.
 */
async function growMounted(
  { host }: NodeParts,
  { volume, device, mounted }: { volume: string; device: Device; mounted: Mounted },
): Promise<void> {
  const { path, type, isReadOnly } = mounted;
  if (!isFileSystemType(type)) {
    throw new CsiError("INTERNAL", `volume ${volume} holds ${type}, which cannot be grown here`);
  }
  const readOnly: Growth = { kind: "refused", why: `it is mounted for reading only at ${path}` };
  const growth = isReadOnly ? readOnly : await host.grow(device, path, type);
  if (growth.kind === "done") return;
  const later = "it grows when no pod uses the volume any more and it is staged again";
  throw new CsiError("FAILED_PRECONDITION", `volume ${volume} has not grown: ${growth.why}; ${later}`);
}
