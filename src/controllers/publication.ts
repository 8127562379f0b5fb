// A migrated volume as Kubernetes sees it: pre-provisioned VolumeSnapshots of constant names. The content of one has a constant
// handle that floats with the newest point; those of pinned points stand for one point each. What a tenant deletes is made anew;
// what a tenant made is never touched, nor does it ever get at a content that is published elsewhere.
import type { VolumeSnapshot, VolumeSnapshotContent } from "../api/core.ts";
import type { MigratedVolume } from "../api/migrated-volume.ts";
import { driverName, label, managedByLongshore, reason } from "../api/names.ts";
import { type PointHandle, renderSnapshotHandle } from "../domain/handles.ts";
import { contentNameOf, labelValueOf } from "../domain/names.ts";
import type { Place, PublicationPlan } from "../domain/publication.ts";
import { type Cluster, controlledBy, type Draft, type KindRef, keyOf, renderKey } from "../kube/cluster.ts";
import { isKubeError } from "../kube/errors.ts";
import {
  contentsByMigratedVolume,
  snapshotsByMigratedVolume,
  VolumeSnapshotContents,
  VolumeSnapshots,
} from "./kinds.ts";
import type { PublishedAt, Publishing } from "./migrated-volume-status.ts";
import { present } from "./status-parts.ts";

/**
 * By this annotation the snapshot-controller lets csi-snapshotter take its finalizer off a content that is being deleted. It sets
 * it when it sees the VolumeSnapshot leave; a tenant who takes that one's finalizers off first would leave the content for ever.
 */
const beingDeleted = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

export interface PublicationFacts {
  /** The volume's, wanted or not. */
  readonly contents: readonly VolumeSnapshotContent[];
  /** All that say they are of one of these contents, wherever they are and whoever made them. */
  readonly claimants: readonly VolumeSnapshot[];
  /** What is at each place, in the places' order. */
  readonly spots: readonly Spot[];
}

interface Spot {
  readonly place: Place;
  readonly snapshot: VolumeSnapshot | undefined;
}

export function observePublication(
  cluster: Cluster,
  migratedVolume: string,
  places: readonly Place[],
): PublicationFacts {
  return {
    contents: cluster.find(contentsByMigratedVolume, migratedVolume),
    claimants: cluster.find(snapshotsByMigratedVolume, migratedVolume),
    spots: places.map((place) => {
      const { namespace, name } = place;
      return { place, snapshot: cluster.get(VolumeSnapshots, { namespace, name }) };
    }),
  };
}

export type PublicationStep =
  | { readonly kind: "makeContent"; readonly place: Place }
  | { readonly kind: "makeSnapshot"; readonly place: Place }
  | { readonly kind: "removeSnapshot"; readonly snapshot: VolumeSnapshot }
  /** Lets csi-snapshotter let go of it. */
  | { readonly kind: "releaseContent"; readonly content: VolumeSnapshotContent }
  | { readonly kind: "removeContent"; readonly content: VolumeSnapshotContent };

/** How far one place is. */
type PlaceState =
  | { readonly kind: "published" }
  | { readonly kind: "waiting"; readonly reason: string; readonly message: string }
  | { readonly kind: "due"; readonly step: PublicationStep };

export interface PublicationState {
  /** What to do next; `undefined` when nothing is left to do at the moment. */
  readonly step: PublicationStep | undefined;
  /** In the order of the plan's places. */
  readonly places: readonly PlaceState[];
}

/** The next step towards the volume being published at the places of these facts and nowhere else. Pure. */
export function decidePublicationStep(owner: MigratedVolume, facts: PublicationFacts): PublicationState {
  const places = facts.spots.map((spot) => stateOf(owner, spot, facts));
  const due = places.flatMap((state) => (state.kind === "due" ? [state.step] : []));
  return { step: withdrawal(owner, facts) ?? due[0], places };
}

/** What is ours, and at no place where it is to be. VolumeSnapshots go before the contents they are bound to. */
function withdrawal(
  owner: MigratedVolume,
  { contents, claimants, spots }: PublicationFacts,
): PublicationStep | undefined {
  const wanted = new Map(spots.map(({ place }) => [contentNameOfPlace(owner, place), place]));
  const leaving = claimants.find((snapshot) => {
    const content = contents.find(({ metadata }) => metadata.name === contentNameIn(snapshot));
    const place = wanted.get(contentNameIn(snapshot) ?? "");
    return !isLeaving(snapshot) && !isAt(snapshot, place) && isBoundTo(content, snapshot);
  });
  if (leaving !== undefined) return { kind: "removeSnapshot", snapshot: leaving };
  const surplus = contents.filter(({ metadata }) => !wanted.has(metadata.name));
  return surplus.flatMap((content) => withdrawn(content, undefined) ?? [])[0];
}

/** The content says for which VolumeSnapshot it is, and nobody but us writes that; labels and owners can be copied. */
function isBoundTo(content: VolumeSnapshotContent | undefined, { metadata }: VolumeSnapshot): boolean {
  const { namespace, name, uid } = content?.spec.volumeSnapshotRef ?? {};
  return namespace === metadata.namespace && name === metadata.name && (uid === undefined || uid === metadata.uid);
}

function stateOf(owner: MigratedVolume, spot: Spot, { contents }: PublicationFacts): PlaceState {
  const { place, snapshot } = spot;
  const contentName = contentNameOfPlace(owner, place);
  const content = contents.find(({ metadata }) => metadata.name === contentName);
  if (snapshot !== undefined && contentNameIn(snapshot) !== contentName) {
    const message = `VolumeSnapshot ${place.namespace}/${place.name} exists and is not ours; delete it, or publish under another name.`;
    return { kind: "waiting", reason: reason.nameConflict, message };
  }
  if (content !== undefined && !isSound(owner, spot, content)) {
    const step = withdrawn(content, snapshot);
    return step === undefined ? remaking : { kind: "due", step };
  }
  if (snapshot !== undefined && isLeaving(snapshot)) return remaking;
  if (content === undefined) return { kind: "due", step: { kind: "makeContent", place } };
  if (snapshot === undefined) return { kind: "due", step: { kind: "makeSnapshot", place } };
  return { kind: "published" };
}

const remaking: PlaceState = {
  kind: "waiting",
  reason: reason.remaking,
  message: "What was deleted is made anew once it is gone.",
};

/** Whether the content is as we make it, and bound to the VolumeSnapshot that is there, or to none yet. */
function isSound(owner: MigratedVolume, { place, snapshot }: Spot, { metadata, spec }: VolumeSnapshotContent): boolean {
  const { namespace, name, uid } = spec.volumeSnapshotRef;
  return (
    metadata.deletionTimestamp === undefined &&
    spec.driver === driverName &&
    spec.source.snapshotHandle === renderSnapshotHandle(handleOf(owner, place)) &&
    spec.deletionPolicy === "Retain" &&
    namespace === place.namespace &&
    name === place.name &&
    // One that was bound to a VolumeSnapshot that is gone is never bound again.
    (uid === undefined || uid === snapshot?.metadata.uid)
  );
}

/** The next step by which a content goes; `undefined` when it only has to be waited for. */
function withdrawn(content: VolumeSnapshotContent, snapshot: VolumeSnapshot | undefined): PublicationStep | undefined {
  const { uid } = content.spec.volumeSnapshotRef;
  // As long as the one that it is bound to is there, the content is held by the snapshot-controller and its sidecar.
  if (snapshot !== undefined && snapshot.metadata.uid === uid && !isLeaving(snapshot)) {
    return { kind: "removeSnapshot", snapshot };
  }
  const isReleased = content.metadata.annotations?.[beingDeleted] !== undefined;
  if (uid !== undefined && !isReleased) return { kind: "releaseContent", content };
  return isLeaving(content) ? undefined : { kind: "removeContent", content };
}

function isLeaving({ metadata }: VolumeSnapshot | VolumeSnapshotContent): boolean {
  return metadata.deletionTimestamp !== undefined;
}

function isAt({ metadata }: VolumeSnapshot, place: Place | undefined): boolean {
  return metadata.namespace === place?.namespace && metadata.name === place?.name;
}

function contentNameIn({ spec }: VolumeSnapshot): string | undefined {
  return spec.source.volumeSnapshotContentName;
}

function contentNameOfPlace(owner: MigratedVolume, place: Place): string {
  return contentNameOf(handleOf(owner, place));
}

function handleOf({ metadata }: MigratedVolume, { point }: Place): PointHandle {
  return { kind: "point", migratedVolume: metadata.name, point };
}

/** What there is to say of a publication as it is now. Pure. */
export function publishingOf(owner: MigratedVolume, plan: PublicationPlan, { places }: PublicationState): Publishing {
  const at = plan.places.flatMap((place, index) =>
    places[index]?.kind === "published" ? [publishedAt(owner, place)] : [],
  );
  const waiting = places.find((state) => state.kind === "waiting");
  if (waiting !== undefined) return { isPublished: false, reason: waiting.reason, message: waiting.message, at };
  if (plan.problem !== undefined) {
    return { isPublished: false, reason: reason.nameConflict, message: `It cannot be published: ${plan.problem}.`, at };
  }
  if (plan.places.length === 0) {
    const message = "No publication rule of its MigrationSource matches it.";
    return { isPublished: undefined, reason: reason.notAsked, message, at };
  }
  if (at.length === places.length) return { isPublished: true, reason: reason.ok, message: "", at };
  return { isPublished: false, reason: reason.applying, message: "Being published.", at };
}

function publishedAt(owner: MigratedVolume, place: Place): PublishedAt {
  const { namespace, name, point, sourceTime } = place;
  return {
    namespace,
    name,
    contentName: contentNameOfPlace(owner, place),
    ...(point !== "latest" && present({ pointId: point, time: sourceTime })),
  };
}

/** `behind`: it is done already, and the cache does not show it yet. */
export type StepResult =
  | { readonly kind: "made" }
  | { readonly kind: "behind" }
  | { readonly kind: "obstacle"; readonly reason: string; readonly message: string };

const made: StepResult = { kind: "made" };
const behind: StepResult = { kind: "behind" };

/** Makes one step. Repeating it is safe. `volumeMode` is the source volume's, where it is known. */
export async function applyPublicationStep(
  step: PublicationStep,
  { owner, volumeMode }: { readonly owner: MigratedVolume; readonly volumeMode: string | undefined },
  cluster: Cluster,
  signal: AbortSignal,
): Promise<StepResult> {
  switch (step.kind) {
    case "makeContent":
      return make(VolumeSnapshotContents, contentDraft(owner, step.place, volumeMode), cluster, signal);
    case "makeSnapshot":
      return make(VolumeSnapshots, snapshotDraft(owner, step.place), cluster, signal);
    case "removeSnapshot": {
      const { name, namespace, uid } = step.snapshot.metadata;
      await cluster.remove(VolumeSnapshots, { name, uid, ...present({ namespace }) }, signal);
      return made;
    }
    case "releaseContent":
      await cluster.patchAnnotations(VolumeSnapshotContents, step.content, { [beingDeleted]: "yes" }, signal);
      return made;
    case "removeContent": {
      const { name, uid } = step.content.metadata;
      await cluster.remove(VolumeSnapshotContents, { name, uid }, signal);
      return made;
    }
  }
}

/** What cannot be made, for want of the namespace or of the kind, or by a policy, is told: nothing else of the volume depends on it. */
async function make<T extends VolumeSnapshot | VolumeSnapshotContent>(
  kind: KindRef<T>,
  draft: Draft<T>,
  cluster: Cluster,
  signal: AbortSignal,
): Promise<StepResult> {
  try {
    return (await cluster.create(kind, draft, signal)) === "created" ? made : behind;
  } catch (error) {
    if (!isKubeError(error, "NotFound", "Forbidden", "Invalid")) throw error;
    const message = `${kind.kind} ${renderKey(keyOf(draft))} cannot be made: ${error.message}`;
    return { kind: "obstacle", reason: reason.namespaceMissing, message };
  }
}

function labelsOf({ metadata, spec }: MigratedVolume, { point }: Place): Record<string, string> {
  return {
    [label.managedBy]: managedByLongshore,
    [label.migratedVolume]: labelValueOf(metadata.name),
    ...(spec.source !== undefined && { [label.source]: labelValueOf(spec.source) }),
    ...(point !== "latest" && { [label.point]: point }),
  };
}

function contentDraft(
  owner: MigratedVolume,
  place: Place,
  sourceVolumeMode: string | undefined,
): Draft<VolumeSnapshotContent> {
  const { namespace, name, snapshotClassName } = place;
  return {
    metadata: {
      name: contentNameOfPlace(owner, place),
      labels: labelsOf(owner, place),
      ownerReferences: [controlledBy(owner)],
    },
    spec: {
      // Whatever becomes of the VolumeSnapshot: our copy is deleted by deleting the MigratedVolume, and by nothing else.
      deletionPolicy: "Retain",
      driver: driverName,
      source: { snapshotHandle: renderSnapshotHandle(handleOf(owner, place)) },
      volumeSnapshotRef: { apiVersion: "snapshot.storage.k8s.io/v1", kind: "VolumeSnapshot", namespace, name },
      ...present({ volumeSnapshotClassName: snapshotClassName, sourceVolumeMode }),
    },
  };
}

function snapshotDraft(owner: MigratedVolume, place: Place): Draft<VolumeSnapshot> {
  const { namespace, name, snapshotClassName } = place;
  return {
    metadata: { name, namespace, labels: labelsOf(owner, place), ownerReferences: [controlledBy(owner)] },
    spec: {
      source: { volumeSnapshotContentName: contentNameOfPlace(owner, place) },
      ...present({ volumeSnapshotClassName: snapshotClassName }),
    },
  };
}
