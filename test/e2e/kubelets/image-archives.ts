// The images that the tests' pods run, as archives that containerd imports. tools/image.ts makes those that are out of date.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../../..");
const folder = join(root, ".cache/image");
/** A fresh machine fetches Debian packages for them. */
const makeMsMax = 1_500_000;

export type Image =
  | "longshore"
  | "csi-provisioner"
  | "csi-resizer"
  | "csi-snapshotter"
  | "csi-snapshot-metadata"
  | "snapshot-controller"
  | "pause"
  | "busybox"
  | "postgres";

/** What Longshore itself runs as. */
export const systemImages: readonly Image[] = [
  "pause",
  "longshore",
  "csi-provisioner",
  "csi-resizer",
  "csi-snapshotter",
  "csi-snapshot-metadata",
  "snapshot-controller",
];

/** Makes what is missing or out of date; one at a time on this machine, since all make the same files. */
export async function makeImages(): Promise<void> {
  const lock = join(root, ".cache/image.lock");
  const command = [lock, process.execPath, join(root, "tools/image.ts"), "--all"];
  await run("flock", command, { cwd: root, timeout: makeMsMax, maxBuffer: 2 ** 26 });
}

export function archiveOf(image: Image): string {
  return join(folder, `${image}.tar`);
}
