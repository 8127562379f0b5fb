// What arrived at the agents → MigratedVolume, and, once it has a first point, a VolumeSnapshot where its MigrationSource says so.
// Deleting the object deletes the copy's data.
import type { VolumeSnapshot, VolumeSnapshotContent } from "../api/core.ts";
import type { MigratedVolume } from "../api/migrated-volume.ts";
import type { MigrationSource } from "../api/migration-source.ts";
import { eventReason, finalizer, label, managedByLongshore, reason } from "../api/names.ts";
import { labelValueOf } from "../domain/names.ts";
import { decidePublication, type Publication, type PublicationDecision } from "../domain/publication.ts";
import {
  again,
  type Controller,
  type Draft,
  type Key,
  keyOf,
  type Outcome,
  ownerOf,
  type ReconcileContext,
  settled,
  watching,
} from "../kube/cluster.ts";
import type { MigratedVolumeView } from "../wire/schemas.ts";
import { agentsProblem, awayBecause, findOne, type Held, laneOfHolder, lostAgent } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import {
  MigratedVolumes,
  MigrationSources,
  migratedBySource,
  VolumeSnapshotContents,
  VolumeSnapshots,
} from "./kinds.ts";
import {
  type MigratedStatus,
  migratedStatus,
  missingStatus,
  type Publishing,
  sourceClaimOf,
} from "./migrated-volume-status.ts";
import {
  applyPublicationStep,
  decidePublicationStep,
  migratedVolumeOf,
  observePublication,
  type PublicationFacts,
} from "./publication.ts";
import { isSame } from "./status-parts.ts";

export function migratedVolumeController(deps: ControllerDeps): Controller {
  const { cluster } = deps;
  return {
    name: controllerName.migratedVolume,
    kind: MigratedVolumes,
    watches: [
      watching<MigrationSource>(MigrationSources, ({ metadata }) =>
        cluster.find(migratedBySource, metadata.name).map(keyOf),
      ),
      // By what it publishes: a tenant may take labels and owners off.
      watching<VolumeSnapshot>(VolumeSnapshots, ({ spec }) => {
        const name = migratedVolumeOf(spec.source.volumeSnapshotContentName);
        return name === undefined ? [] : [{ name }];
      }),
      watching<VolumeSnapshotContent>(VolumeSnapshotContents, ownerOf(MigratedVolumes)),
    ],
    laneOf: ({ name }) => laneOfHolder(deps.agents, "migratedVolumes", name),
    reconcile: (key, context) => reconcile(key, deps, context),
  };
}

interface Facts {
  readonly object: MigratedVolume | undefined;
  readonly held: Held<MigratedVolumeView> | undefined;
  readonly wish: PublicationDecision;
  readonly publication: Publication | undefined;
  readonly published: PublicationFacts;
  readonly agentsProblem: string | undefined;
}

async function reconcile(key: Key, deps: ControllerDeps, context: ReconcileContext): Promise<Outcome> {
  const facts = observe(key, deps);
  const { object, held } = facts;
  if (object === undefined) return held === undefined ? settled : appear(held, deps, context.signal);
  if (object.metadata.deletionTimestamp !== undefined) return depart(object, facts, deps, context.signal);
  if (held === undefined) {
    const status = missingStatus(object, absence(object, facts, deps), deps.clock.nowMs());
    await deps.cluster.patchStatus(MigratedVolumes, object, status, context.signal);
    return settled;
  }
  return stay(object, held.view, facts, deps, context.signal);
}

function observe(key: Key, { cluster, agents }: ControllerDeps): Facts {
  const object = cluster.get(MigratedVolumes, key);
  const held = findOne(agents, "migratedVolumes", key.name);
  const sourceName = held?.view.source ?? object?.spec.source;
  const source = sourceName === undefined ? undefined : cluster.get(MigrationSources, { name: sourceName });
  const wish = wishOf(source, held?.view);
  const publication = wish.kind === "publish" ? wish.publication : undefined;
  return {
    object,
    held,
    wish,
    publication,
    published: observePublication(cluster, key.name, publication),
    agentsProblem: agentsProblem(agents),
  };
}

function absence({ status }: MigratedVolume, { agentsProblem: problem }: Facts, { agents }: ControllerDeps) {
  return { problem, lost: lostAgent(agents.members(), status?.home) };
}

/** Nothing is published before the first commit, nor without a MigrationSource that says so. */
function wishOf(source: MigrationSource | undefined, view: MigratedVolumeView | undefined): PublicationDecision {
  if (source === undefined || view === undefined || view.points.length === 0) return { kind: "none" };
  if (source.metadata.deletionTimestamp !== undefined) return { kind: "none" };
  return decidePublication(source.spec.publications ?? [], sourceClaimOf(view));
}

/** A copy that has no object yet gets one, with the finalizer from the start: deleting it deletes data. */
async function appear({ view }: Held<MigratedVolumeView>, { cluster }: ControllerDeps, signal: AbortSignal) {
  await cluster.create(MigratedVolumes, draftOf(view), signal);
  return settled;
}

function specOf(view: MigratedVolumeView): MigratedVolume["spec"] {
  const { source, sourceClusterUid, sourceVolumeUid, name } = view;
  return { source, sourceClusterUid, sourceVolume: sourceVolumeUid, volume: name };
}

function draftOf(view: MigratedVolumeView): Draft<MigratedVolume> {
  const labels = { [label.managedBy]: managedByLongshore, [label.source]: labelValueOf(view.source) };
  return { metadata: { name: view.name, labels, finalizers: [finalizer.migratedVolume] }, spec: specOf(view) };
}

async function stay(
  object: MigratedVolume,
  view: MigratedVolumeView,
  facts: Facts,
  deps: ControllerDeps,
  signal: AbortSignal,
): Promise<Outcome> {
  const { cluster, clock } = deps;
  if (!object.metadata.finalizers?.includes(finalizer.migratedVolume)) {
    await cluster.addFinalizer(MigratedVolumes, object, finalizer.migratedVolume, signal);
    return settled;
  }
  if (object.spec.source !== view.source && isSame({ ...object.spec, source: view.source }, specOf(view))) {
    await cluster.apply(MigratedVolumes, draftOf(view), signal);
    return settled;
  }
  const { publishing, isMoving } = await publish(object, view, facts, deps, signal);
  const nowMs = clock.nowMs();
  const written = migratedStatus(object, view, publishing, nowMs);
  await cluster.patchStatus(MigratedVolumes, object, written.status, signal);
  tellPublishing(object, publishing, deps);
  return outcome(written, publishing, isMoving, nowMs);
}

/** A namespace that appears, or a VolumeSnapshot of others that goes, does not announce itself here. */
const publishEveryMs = 30_000;

function outcome({ progressMs }: MigratedStatus, publishing: Publishing, isMoving: boolean, nowMs: number): Outcome {
  if (isMoving) return again(0);
  const times = [
    progressMs === undefined ? undefined : Math.max(0, progressMs - nowMs),
    publishing.isPublished === false ? publishEveryMs : undefined,
  ].filter((time) => time !== undefined);
  return times.length === 0 ? settled : again(Math.min(...times));
}

/** Makes one step towards what is wished. `isMoving`: another may follow at once. */
async function publish(
  object: MigratedVolume,
  view: MigratedVolumeView,
  { publication, published, wish }: Facts,
  { cluster }: ControllerDeps,
  signal: AbortSignal,
): Promise<{ publishing: Publishing; isMoving: boolean }> {
  const step = decidePublicationStep(object.metadata.name, publication, published);
  if (step.kind === "done" || step.kind === "wait") {
    if (wish.kind !== "invalid") return { publishing: step.publishing, isMoving: false };
    const message = `It cannot be published: ${wish.message}.`;
    return { publishing: { isPublished: false, reason: reason.nameConflict, message }, isMoving: false };
  }
  const obstacle = await applyPublicationStep(step, { owner: object, view, publication }, cluster, signal);
  const underWay: Publishing = { isPublished: false, reason: reason.applying, message: "Being published." };
  return { publishing: obstacle ?? underWay, isMoving: obstacle === undefined };
}

function tellPublishing(object: MigratedVolume, publishing: Publishing, { cluster }: ControllerDeps): void {
  const { isPublished, message, at } = publishing;
  const before = object.status?.published?.length ?? 0;
  if (isPublished === true && at !== undefined && before === 0) {
    const text = `Published as VolumeSnapshot ${at.namespace}/${at.name}`;
    cluster.event(object, { type: "Normal", reason: eventReason.published, message: text });
  }
  if (isPublished === false && publishing.reason !== reason.applying && publishing.reason !== reason.remaking) {
    cluster.event(object, { type: "Warning", reason: eventReason.publicationFailed, message });
  }
}

const departEveryMs = 5_000;

/** First nobody can find it any more, then its data goes, then the object. */
async function depart(
  object: MigratedVolume,
  { held, agentsProblem }: Facts,
  deps: ControllerDeps,
  signal: AbortSignal,
): Promise<Outcome> {
  const { cluster, clock } = deps;
  const { name } = object.metadata;
  const step = decidePublicationStep(name, undefined, observePublication(cluster, name, undefined));
  if (step.kind === "wait") return settled; // Its disappearance brings the volume back here.
  if (step.kind !== "done") {
    await applyPublicationStep(step, { owner: object, view: held?.view, publication: undefined }, cluster, signal);
    return again(0);
  }
  const problem = held === undefined ? agentsProblem : awayBecause(held.agent);
  if (problem !== undefined) {
    // An agent that is away may hold the data; only it can delete it.
    const status = missingStatus(object, { problem, lost: undefined }, clock.nowMs());
    await cluster.patchStatus(MigratedVolumes, object, status, signal);
    return settled;
  }
  if (held !== undefined) {
    // The cache of a leader that has just begun may show an object that is gone, and the copy be one that came since.
    const present = await cluster.read(MigratedVolumes, keyOf(object), signal);
    if (present?.metadata.uid !== object.metadata.uid) return settled;
    // The object goes once the copy is seen to be gone: what is still seen would be given an object anew.
    await held.agent.api.removeMigratedVolume(name);
    return again(departEveryMs);
  }
  await cluster.removeFinalizer(MigratedVolumes, object, finalizer.migratedVolume, signal);
  return settled;
}
