// A migrated volume as Kubernetes sees it: a pre-provisioned VolumeSnapshot of constant name, whose content has a constant
// handle that floats with the newest point. What a tenant deletes is made anew; what a tenant made is never touched.
import type { VolumeSnapshot, VolumeSnapshotContent } from "../api/core.ts";
import type { MigratedVolume } from "../api/migrated-volume.ts";
import { driverName, label, managedByLongshore, metadataKey, reason } from "../api/names.ts";
import { latestHandle } from "../domain/handles.ts";
import { labelValueOf } from "../domain/names.ts";
import type { Publication } from "../domain/publication.ts";
import { type Cluster, controlledBy, type Draft } from "../kube/cluster.ts";
import { isKubeError } from "../kube/errors.ts";
import type { MigratedVolumeView } from "../wire/schemas.ts";
import { snapshotsByMigratedVolume, VolumeSnapshotContents, VolumeSnapshots } from "./kinds.ts";
import type { Publishing } from "./migrated-volume-status.ts";
import { present } from "./status-parts.ts";

const contentPrefix = "longshore-";

export function contentNameOf(migratedVolume: string): string {
  return contentPrefix + migratedVolume;
}

/** The migrated volume that a content of this name publishes, if it is one of ours. */
export function migratedVolumeOf(contentName: string | undefined): string | undefined {
  return contentName?.startsWith(contentPrefix) ? contentName.slice(contentPrefix.length) : undefined;
}

export interface PublicationFacts {
  readonly content: VolumeSnapshotContent | undefined;
  readonly snapshot: VolumeSnapshot | undefined;
  /** Ours, of this migrated volume, at places where it is not to be published (any more). */
  readonly surplus: readonly VolumeSnapshot[];
}

export function observePublication(
  cluster: Cluster,
  migratedVolume: string,
  publication: Publication | undefined,
): PublicationFacts {
  const ours = cluster.find(snapshotsByMigratedVolume, labelValueOf(migratedVolume));
  const isWanted = ({ metadata }: VolumeSnapshot) =>
    metadata.name === publication?.name && metadata.namespace === publication.namespace;
  return {
    content: cluster.get(VolumeSnapshotContents, { name: contentNameOf(migratedVolume) }),
    snapshot: publication && cluster.get(VolumeSnapshots, { namespace: publication.namespace, name: publication.name }),
    surplus: ours.filter((snapshot) => !isWanted(snapshot)),
  };
}

export type PublicationStep =
  | { readonly kind: "done"; readonly publishing: Publishing }
  | { readonly kind: "wait"; readonly publishing: Publishing }
  | { readonly kind: "makeContent" }
  | { readonly kind: "makeSnapshot" }
  | { readonly kind: "removeSnapshot"; readonly snapshot: VolumeSnapshot }
  | { readonly kind: "removeContent"; readonly content: VolumeSnapshotContent };

/** The next step towards the volume being published there, or nowhere. Pure. */
export function decidePublicationStep(
  migratedVolume: string,
  publication: Publication | undefined,
  { content, snapshot, surplus }: PublicationFacts,
): PublicationStep {
  const leaving = surplus.find(({ metadata }) => metadata.deletionTimestamp === undefined);
  if (leaving !== undefined) return { kind: "removeSnapshot", snapshot: leaving };
  if (publication === undefined) return unpublish(content);
  const { namespace, name } = publication;
  const contentName = contentNameOf(migratedVolume);
  if (snapshot !== undefined && snapshot.spec.source.volumeSnapshotContentName !== contentName) {
    const message = `VolumeSnapshot ${namespace}/${name} exists and is not ours; rename it, or publish under another name.`;
    return waiting(reason.nameConflict, message);
  }
  if (content !== undefined && !isFitting(content, publication, snapshot)) return unpublish(content);
  if (content === undefined) return { kind: "makeContent" };
  if (snapshot === undefined) return { kind: "makeSnapshot" };
  if (snapshot.metadata.deletionTimestamp !== undefined) return remaking;
  const at = { namespace, name, contentName };
  return { kind: "done", publishing: { isPublished: true, reason: reason.ok, message: "", at } };
}

const remaking: PublicationStep = waiting(reason.remaking, "What was deleted is made anew once it is gone.");

function waiting(because: string, message: string): PublicationStep {
  return { kind: "wait", publishing: { isPublished: false, reason: because, message } };
}

function unpublish(content: VolumeSnapshotContent | undefined): PublicationStep {
  if (content === undefined) {
    const message = "No publication rule of its MigrationSource matches it.";
    return { kind: "done", publishing: { isPublished: undefined, reason: reason.notAsked, message } };
  }
  return content.metadata.deletionTimestamp === undefined ? { kind: "removeContent", content } : remaking;
}

/** Whether the content is bound to the VolumeSnapshot that is there, or to none yet. */
function isFitting(
  { metadata, spec }: VolumeSnapshotContent,
  { namespace, name }: Publication,
  snapshot: VolumeSnapshot | undefined,
): boolean {
  const { volumeSnapshotRef } = spec;
  return (
    metadata.deletionTimestamp === undefined &&
    volumeSnapshotRef.namespace === namespace &&
    volumeSnapshotRef.name === name &&
    // One that was bound to a VolumeSnapshot that is gone is never bound again.
    (volumeSnapshotRef.uid === undefined || volumeSnapshotRef.uid === snapshot?.metadata.uid)
  );
}

/** Makes one step; `undefined` when it was made, otherwise what is in its way. */
export async function applyPublicationStep(
  step: Exclude<PublicationStep, { kind: "done" | "wait" }>,
  {
    owner,
    view,
    publication,
  }: { owner: MigratedVolume; view: MigratedVolumeView | undefined; publication: Publication | undefined },
  cluster: Cluster,
  signal: AbortSignal,
): Promise<Publishing | undefined> {
  switch (step.kind) {
    case "makeContent":
      if (publication && view)
        await cluster.create(VolumeSnapshotContents, contentDraft(owner, view, publication), signal);
      return undefined;
    case "makeSnapshot":
      return publication && makeSnapshot(owner, publication, cluster, signal);
    case "removeSnapshot": {
      const { name, namespace, uid } = step.snapshot.metadata;
      await cluster.remove(VolumeSnapshots, { name, uid, ...present({ namespace }) }, signal);
      return undefined;
    }
    case "removeContent": {
      const { name, uid } = step.content.metadata;
      await cluster.remove(VolumeSnapshotContents, { name, uid }, signal);
      return undefined;
    }
  }
}

async function makeSnapshot(
  owner: MigratedVolume,
  publication: Publication,
  cluster: Cluster,
  signal: AbortSignal,
): Promise<Publishing | undefined> {
  try {
    await cluster.create(VolumeSnapshots, snapshotDraft(owner, publication), signal);
    return undefined;
  } catch (error) {
    if (!isKubeError(error, "NotFound", "Forbidden")) throw error;
    const message = `VolumeSnapshot ${publication.namespace}/${publication.name} cannot be made: ${error.message}`;
    return { isPublished: false, reason: reason.namespaceMissing, message };
  }
}

function labelsOf({ metadata, spec }: MigratedVolume): Record<string, string> {
  return {
    [label.managedBy]: managedByLongshore,
    [label.migratedVolume]: labelValueOf(metadata.name),
    ...(spec.source !== undefined && { [label.source]: labelValueOf(spec.source) }),
  };
}

function contentDraft(
  owner: MigratedVolume,
  view: MigratedVolumeView,
  { namespace, name, snapshotClassName }: Publication,
): Draft<VolumeSnapshotContent> {
  return {
    metadata: {
      name: contentNameOf(owner.metadata.name),
      labels: labelsOf(owner),
      ownerReferences: [controlledBy(owner)],
    },
    spec: {
      // Whatever becomes of the VolumeSnapshot: our copy is deleted by deleting the MigratedVolume, and by nothing else.
      deletionPolicy: "Retain",
      driver: driverName,
      source: { snapshotHandle: latestHandle(owner.metadata.name) },
      volumeSnapshotRef: { apiVersion: "snapshot.storage.k8s.io/v1", kind: "VolumeSnapshot", namespace, name },
      ...present({
        volumeSnapshotClassName: snapshotClassName,
        sourceVolumeMode: view.metadata[metadataKey.volumeMode],
      }),
    },
  };
}

function snapshotDraft(
  owner: MigratedVolume,
  { namespace, name, snapshotClassName }: Publication,
): Draft<VolumeSnapshot> {
  return {
    metadata: { name, namespace, labels: labelsOf(owner), ownerReferences: [controlledBy(owner)] },
    spec: {
      source: { volumeSnapshotContentName: contentNameOf(owner.metadata.name) },
      ...present({ volumeSnapshotClassName: snapshotClassName }),
    },
  };
}
