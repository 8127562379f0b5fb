// What an uninstall decides by looking at a cluster: who still uses our volumes, what has to be let go of, and what is not ours to
// touch. Pure.
import { driverName, group, label, managedByLongshore } from "../../src/api/names.ts";

/** Enough of an object of any kind. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly finalizers?: readonly string[];
    readonly resourceVersion?: string;
    readonly deletionTimestamp?: string;
  };
}

export interface Volume extends KubeObject {
  readonly spec?: { readonly csi?: { readonly driver?: string } };
}

export interface Claim extends KubeObject {
  readonly spec?: { readonly volumeName?: string };
}

export interface Pod extends KubeObject {
  readonly spec?: {
    readonly volumes?: readonly {
      readonly name: string;
      readonly persistentVolumeClaim?: { readonly claimName: string };
      readonly ephemeral?: object;
    }[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/** A VolumeSnapshot, or a VolumeGroupSnapshot, which names its content in other fields. */
export interface Snapshot extends KubeObject {
  readonly spec?: {
    readonly source?: {
      readonly volumeSnapshotContentName?: string;
      readonly volumeGroupSnapshotContentName?: string;
    };
  };
  readonly status?: {
    readonly boundVolumeSnapshotContentName?: string;
    readonly boundVolumeGroupSnapshotContentName?: string;
  };
}

/** Of either. */
export interface SnapshotContent extends KubeObject {
  readonly spec?: {
    readonly driver?: string;
    readonly deletionPolicy?: string;
    readonly volumeSnapshotRef?: { readonly namespace?: string; readonly name?: string };
    readonly volumeGroupSnapshotRef?: { readonly namespace?: string; readonly name?: string };
  };
}

export function nameOf({ metadata: { namespace, name } }: KubeObject): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

export function ourVolumes(volumes: readonly Volume[]): Volume[] {
  return volumes.filter(({ spec }) => spec?.csi?.driver === driverName);
}

/** The claims of our volumes. */
export function ourClaims(claims: readonly Claim[], volumes: readonly Volume[]): Claim[] {
  const names = new Set(ourVolumes(volumes).map(({ metadata }) => metadata.name));
  return claims.filter(({ spec }) => spec?.volumeName !== undefined && names.has(spec.volumeName));
}

/** Pods that have not ended and mount one of the claims: `shop/db-0 (claim data)`. */
export function podsUsing(pods: readonly Pod[], claims: readonly Claim[]): string[] {
  const names = new Set(claims.map(nameOf));
  return pods.flatMap((pod) => {
    if (pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed") return [];
    const used = claimsOf(pod).filter((claim) => names.has(`${pod.metadata.namespace}/${claim}`));
    return used.length === 0 ? [] : [`${nameOf(pod)} (${used.length > 1 ? "claims" : "claim"} ${used.join(", ")})`];
  });
}

/** An ephemeral volume is a claim of the pod's and the volume's name. */
function claimsOf({ metadata, spec }: Pod): string[] {
  return (spec?.volumes ?? []).flatMap(({ name, persistentVolumeClaim, ephemeral }) => {
    if (persistentVolumeClaim !== undefined) return [persistentVolumeClaim.claimName];
    return ephemeral === undefined ? [] : [`${metadata.name}-${name}`];
  });
}

export function isReady({ status }: Pod): boolean {
  return status?.conditions?.some(({ type, status: holds }) => type === "Ready" && holds === "True") === true;
}

export interface OurSnapshots {
  /** By the operator. */
  readonly published: readonly SnapshotContent[];
  readonly users: readonly SnapshotContent[];
}

/** The snapshots of our driver. */
export function ourSnapshots(contents: readonly SnapshotContent[]): OurSnapshots {
  const ours = contents.filter(({ spec }) => spec?.driver === driverName);
  const isPublished = ({ metadata }: KubeObject) => metadata.labels?.[label.managedBy] === managedByLongshore;
  return { published: ours.filter(isPublished), users: ours.filter((content) => !isPublished(content)) };
}

/** Whether a snapshot is that of one of the contents, and not merely of the name that the content once had one of. */
export function isBoundTo({ spec, status }: Snapshot, contents: readonly SnapshotContent[]): boolean {
  const { volumeSnapshotContentName, volumeGroupSnapshotContentName } = spec?.source ?? {};
  const { boundVolumeSnapshotContentName, boundVolumeGroupSnapshotContentName } = status ?? {};
  const given = volumeSnapshotContentName ?? volumeGroupSnapshotContentName;
  const name = given ?? boundVolumeSnapshotContentName ?? boundVolumeGroupSnapshotContentName;
  return contents.some(({ metadata }) => metadata.name === name);
}

/** What a content is called by those who see its snapshot. */
export function snapshotOf({ metadata, spec }: SnapshotContent): string {
  const { namespace, name } = spec?.volumeSnapshotRef ?? spec?.volumeGroupSnapshotRef ?? {};
  return name === undefined ? metadata.name : `${namespace}/${name}`;
}

/** Which finalizers nobody will remove any more once we are gone, by what they are on. */
export const orphaned = {
  /** On our own kinds. */
  own: (finalizer: string) => finalizer.startsWith(`${group}/`),
  /** Of csi-provisioner, on volumes that are to be deleted with their claims, and on claims that were cloned. */
  volume: (finalizer: string) => finalizer === "external-provisioner.volume.kubernetes.io/finalizer",
  claim: (finalizer: string) => finalizer === "provisioner.storage.kubernetes.io/cloning-protection",
  /** Of csi-snapshotter and the snapshot controller, on snapshots and their contents that are being deleted. */
  snapshot: (finalizer: string) => /^(?:group)?snapshot\.storage\.kubernetes\.io\//.test(finalizer),
} as const;

/** The finalizers that stay, or nothing when there is none to take off. */
export function without({ metadata }: KubeObject, isOrphaned: (finalizer: string) => boolean): string[] | undefined {
  const { finalizers = [] } = metadata;
  const kept = finalizers.filter((finalizer) => !isOrphaned(finalizer));
  return kept.length === finalizers.length ? undefined : kept;
}

const attachedImage = /^(\S+)\s+((?:\S.*)?\/volumes\/[^/]+\/(?:live|points\/[^/]+)\.img)/;

/**
 * The images of ours that a node has loop devices on, from what losetup lists: a device and its file a line. Of what an earlier
 * container has attached, the path begins where that container had mounted it from.
 */
export function attachedImages(listing: string): string[] {
  return listing.split("\n").flatMap((line) => {
    const [, device, file] = attachedImage.exec(line.trim()) ?? [];
    return device === undefined || file === undefined ? [] : [`${device} on ${file}`];
  });
}

/** A few of many, for a person. */
export function someOf(names: readonly string[], shown = 10): string {
  const rest = names.length > shown ? `\n  and ${names.length - shown} more` : "";
  return names
    .slice(0, shown)
    .map((name) => `\n  ${name}`)
    .join("")
    .concat(rest);
}
