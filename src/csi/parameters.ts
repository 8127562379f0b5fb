// The parameters of StorageClasses and VolumeSnapshotClasses: checked for their form only. Whether the schedule and the locations that
// they name exist is a condition of the VolumeMigration, for it may change at any time; the driver must not depend on it.
import { metadataKey } from "../api/names.ts";
import { classParameterNames, classParameterProblems } from "../domain/policy.ts";
import type { Metadata } from "../wire/schemas.ts";
import { CsiError } from "./status.ts";
import type { VolumeUse } from "./volume-capabilities.ts";

/** What the provisioner adds with --extra-create-metadata, and where it goes in the volume's metadata. */
const provisionersKeys: Readonly<Record<string, string>> = {
  "csi.storage.k8s.io/pvc/namespace": metadataKey.claimNamespace,
  "csi.storage.k8s.io/pvc/name": metadataKey.claimName,
  "csi.storage.k8s.io/pv/name": metadataKey.persistentVolume,
};

/** The provisioner takes it for itself, and passes it on in the capability. */
export const fileSystemParameter = "csi.storage.k8s.io/fstype";

const snapshottersPrefix = "csi.storage.k8s.io/";

type Texts = Readonly<Record<string, string>>;

/** Throws INVALID_ARGUMENT, naming each parameter that is unknown or written wrongly. */
export function checkVolumeParameters(parameters: Texts): void {
  const known = [...Object.keys(provisionersKeys), fileSystemParameter, ...classParameterNames];
  const unknown = Object.keys(parameters).filter((name) => !known.includes(name));
  const problems = [...unknown.map((name) => unknownParameter(name, known)), ...classParameterProblems(parameters)];
  if (problems.length > 0) throw new CsiError("INVALID_ARGUMENT", problems.join("; "));
}

/** Throws INVALID_ARGUMENT, naming each parameter: a VolumeSnapshotClass has none but the sidecar's own. */
export function checkSnapshotParameters(parameters: Texts): void {
  const unknown = Object.keys(parameters).filter((name) => !name.startsWith(snapshottersPrefix));
  if (unknown.length === 0) return;
  throw new CsiError(
    "INVALID_ARGUMENT",
    unknown.map((name) => `parameter ${name} is not known; leave it out`).join("; "),
  );
}

/** Parameters that may be changed later are for drivers that can change volumes; this one has none. */
export function refuseMutableParameters(parameters: Texts): void {
  const names = Object.keys(parameters);
  if (names.length === 0) return;
  throw new CsiError(
    "INVALID_ARGUMENT",
    `mutable parameters are not supported: ${names.join(", ")}; leave the VolumeAttributesClass out`,
  );
}

/** What the agents carry along with the volume, and the operator completes once the PersistentVolume is there. */
export function metadataOf(parameters: Texts, use: VolumeUse): Metadata {
  const metadata: Metadata = { [metadataKey.volumeMode]: use.mode };
  if (use.mode === "Filesystem") metadata[metadataKey.fileSystem] = use.fileSystem;
  for (const [parameter, key] of Object.entries(provisionersKeys)) {
    const value = parameters[parameter];
    if (value !== undefined) metadata[key] = value;
  }
  return metadata;
}

function unknownParameter(name: string, known: readonly string[]): string {
  return `parameter ${name} is not known; there are ${known.join(", ")}`;
}
