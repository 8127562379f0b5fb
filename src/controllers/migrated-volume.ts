// What arrived at the agents → MigratedVolume, and, once it has a first point, a VolumeSnapshot where its MigrationSource says so.
// Deleting the object deletes the copy's data.
import type { VolumeSnapshot, VolumeSnapshotContent } from "../api/core.ts";
import type { MigratedVolume } from "../api/migrated-volume.ts";
import type { MigrationSource } from "../api/migration-source.ts";
import { eventReason, finalizer, label, managedByLongshore, reason } from "../api/names.ts";
import { labelValueOf } from "../domain/names.ts";
import { type CommittedPoint, decidePublication, type PublicationPlan } from "../domain/publication.ts";
import {
  again,
  type Cluster,
  type Controller,
  type Draft,
  type Key,
  keyOf,
  type Outcome,
  type ReconcileContext,
  settled,
  watching,
} from "../kube/cluster.ts";
import type { MigratedPoint, MigratedVolumeView } from "../wire/schemas.ts";
import { agentsProblem, awayBecause, findOne, type Held, laneOfHolder, lostAgent } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import {
  MigratedVolumes,
  MigrationSources,
  migratedBySource,
  migratedVolumeOfContent,
  migratedVolumeOfSnapshot,
  VolumeSnapshotContents,
  VolumeSnapshots,
} from "./kinds.ts";
import {
  migratedStatus,
  missingStatus,
  type Publishing,
  sourceClaimOf,
  volumeModeOf,
} from "./migrated-volume-status.ts";
import { applyPublicationStep, decidePublicationStep, observePublication, publishingOf } from "./publication.ts";
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
      watching<VolumeSnapshot>(VolumeSnapshots, (snapshot) => keysOf(migratedVolumeOfSnapshot(snapshot))),
      watching<VolumeSnapshotContent>(VolumeSnapshotContents, (content) => keysOf(migratedVolumeOfContent(content))),
    ],
    laneOf: ({ name }) => laneOfHolder(deps.agents, "migratedVolumes", name),
    reconcile: (key, context) => reconcile(key, deps, context),
  };
}

function keysOf(name: string | undefined): readonly Key[] {
  return name === undefined ? [] : [{ name }];
}

interface Facts {
  readonly object: MigratedVolume | undefined;
  readonly held: Held<MigratedVolumeView> | undefined;
  readonly plan: PublicationPlan;
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
  return stay(object, held, facts, deps, context.signal);
}

function observe(key: Key, { cluster, agents }: ControllerDeps): Facts {
  const object = cluster.get(MigratedVolumes, key);
  const held = findOne(agents, "migratedVolumes", key.name);
  const sourceName = held?.view.source ?? object?.spec.source;
  const source = sourceName === undefined ? undefined : cluster.get(MigrationSources, { name: sourceName });
  return { object, held, plan: planOf(source, held?.view), agentsProblem: agentsProblem(agents) };
}

function absence({ status }: MigratedVolume, { agentsProblem: problem }: Facts, { agents }: ControllerDeps) {
  return { problem, lost: lostAgent(agents.members(), status?.home) };
}

/** Nothing is published without a MigrationSource that says so. */
function planOf(source: MigrationSource | undefined, view: MigratedVolumeView | undefined): PublicationPlan {
  if (source === undefined || view === undefined || source.metadata.deletionTimestamp !== undefined) return nowhere;
  return decidePublication(source.spec.publications ?? [], sourceClaimOf(view), view.points.map(committedPoint));
}

const nowhere: PublicationPlan = { places: [] };

function committedPoint({ pointId, groupPoint, sourceTime, state }: MigratedPoint): CommittedPoint {
  return { pointId, groupPoint, sourceTime, isWhole: state === "sealed" };
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
  held: Held<MigratedVolumeView>,
  facts: Facts,
  deps: ControllerDeps,
  signal: AbortSignal,
): Promise<Outcome> {
  const { cluster, clock } = deps;
  const { view } = held;
  if (!object.metadata.finalizers?.includes(finalizer.migratedVolume)) {
    await cluster.addFinalizer(MigratedVolumes, object, finalizer.migratedVolume, signal);
    return settled;
  }
  if (object.spec.source !== view.source && isSame({ ...object.spec, source: view.source }, specOf(view))) {
    await cluster.apply(MigratedVolumes, draftOf(view), signal);
    return settled;
  }
  const { publishing, againMs } = await publish(object, { view, plan: facts.plan }, cluster, signal);
  const nowMs = clock.nowMs();
  const written = migratedStatus(object, held, publishing, nowMs);
  await cluster.patchStatus(MigratedVolumes, object, written.status, signal);
  tellPublishing(object, publishing, deps);
  const progressMs = written.progressMs === undefined ? undefined : Math.max(0, written.progressMs - nowMs);
  const times = [againMs, progressMs].filter((time) => time !== undefined);
  return times.length === 0 ? settled : again(Math.min(...times));
}

/** A namespace that appears, or a VolumeSnapshot of others that goes, does not announce itself here. */
const publishEveryMs = 30_000;

/** How soon to look again when what was made is not seen yet. */
const behindMs = 200;

/** More than there are places, each of them remade; what is left then is for the next time. */
const stepsMax = 200;

interface Published {
  readonly publishing: Publishing;
  /** When to look again, at the latest. */
  readonly againMs: number | undefined;
}

/** Goes step by step towards what is wished, each decided anew, until nothing is left to do or something is in the way. */
async function publish(
  owner: MigratedVolume,
  { view, plan }: { readonly view: MigratedVolumeView; readonly plan: PublicationPlan },
  cluster: Cluster,
  signal: AbortSignal,
): Promise<Published> {
  const about = { owner, volumeMode: volumeModeOf(view) };
  for (let steps = 1; ; steps++) {
    const state = decidePublicationStep(owner, observePublication(cluster, owner.metadata.name, plan.places));
    const publishing = publishingOf(owner, plan, state);
    if (state.step === undefined) {
      return { publishing, againMs: publishing.isPublished === false ? publishEveryMs : undefined };
    }
    if (steps > stepsMax) return { publishing, againMs: 0 };
    const result = await applyPublicationStep(state.step, about, cluster, signal);
    if (result.kind === "behind") return { publishing, againMs: behindMs };
    if (result.kind === "obstacle") {
      const { reason: because, message } = result;
      return { publishing: { ...publishing, isPublished: false, reason: because, message }, againMs: publishEveryMs };
    }
  }
}

function tellPublishing(object: MigratedVolume, publishing: Publishing, { cluster }: ControllerDeps): void {
  const { isPublished, message, at } = publishing;
  const before = object.status?.published?.length ?? 0;
  const [first] = at;
  if (isPublished === true && first !== undefined && before === 0) {
    const text = `Published as VolumeSnapshot ${first.namespace}/${first.name}`;
    cluster.event(object, { type: "Normal", reason: eventReason.published, message: text });
  }
  if (isPublished === false && publishing.reason !== reason.applying && publishing.reason !== reason.remaking) {
    cluster.event(object, { type: "Warning", reason: eventReason.publicationFailed, message });
  }
}

const departEveryMs = 5_000;

/**
 * First nobody can find it any more, then its data goes, then the object. What a tenant, or whatever uses it, holds back of the
 * VolumeSnapshots on their way out holds up nothing: they cannot be restored from any more.
 */
async function depart(
  object: MigratedVolume,
  { held, agentsProblem }: Facts,
  deps: ControllerDeps,
  signal: AbortSignal,
): Promise<Outcome> {
  const { cluster, clock } = deps;
  const { name } = object.metadata;
  const { step } = decidePublicationStep(object, observePublication(cluster, name, []));
  if (step !== undefined) {
    await applyPublicationStep(step, { owner: object, volumeMode: undefined }, cluster, signal);
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
