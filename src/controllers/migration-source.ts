// MigrationSource → every agent: consent to take a source cluster's volumes. It is withdrawn at every agent before the object
// goes; what has arrived stays.
import type { MigratedVolume } from "../api/migrated-volume.ts";
import type { MigrationSource, MigrationSourceSpec, MigrationSourceStatus } from "../api/migration-source.ts";
import { conditionType, finalizer, reason } from "../api/names.ts";
import { parseQuantity } from "../domain/quantity.ts";
import {
  type Controller,
  counting,
  type Key,
  keyOf,
  type Outcome,
  type ReconcileContext,
  settled,
} from "../kube/cluster.ts";
import { conditionOf } from "../kube/conditions.ts";
import type { SourceSpec } from "../wire/schemas.ts";
import { agentsProblem, findAll, type SeenAgent } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { MigratedVolumes, MigrationSources, migratedBySource } from "./kinds.ts";
import { explain, refusalOfAny } from "./refusal.ts";
import { isSame, judge, judged, present } from "./status-parts.ts";

export function migrationSourceController(deps: ControllerDeps): Controller {
  return {
    name: controllerName.migrationSource,
    kind: MigrationSources,
    watches: [
      counting<MigratedVolume>(MigratedVolumes, ({ spec }) =>
        spec.source === undefined ? [] : [{ name: spec.source }],
      ),
    ],
    // Each asks all agents: one that hangs there keeps no other waiting.
    laneOf: ({ name }) => name,
    reconcile: (key, context) => reconcile(key, deps, context),
  };
}

interface Facts {
  readonly source: MigrationSource;
  readonly wished: SourceSpec;
  readonly agents: readonly SeenAgent[];
  /** The agents that do not have the consent as it is wished. */
  readonly behind: readonly SeenAgent[];
  readonly known: readonly SeenAgent[];
  readonly volumes: readonly MigratedVolume[];
  readonly usedBytes: number;
  readonly problem: string | undefined;
  /** Why an agent did not take it. */
  readonly refusal?: string;
}

async function reconcile(key: Key, deps: ControllerDeps, { signal }: ReconcileContext): Promise<Outcome> {
  const facts = observe(key, deps);
  if (facts === undefined) return settled;
  const { source } = facts;
  if (source.metadata.deletionTimestamp !== undefined) return depart(facts, deps, signal);
  if (source.metadata.finalizers?.includes(finalizer.source) !== true) {
    // Before any agent hears of it: consent that was given has to be taken back when the object goes.
    await deps.cluster.addFinalizer(MigrationSources, source, finalizer.source, signal);
    return settled;
  }
  const refusal = await refusalOfAny(facts.behind, ({ api }) => api.putSource(source.metadata.name, facts.wished));
  const said = conditionOf(source.status?.conditions, conditionType.ready)?.message;
  const shown = refusal === undefined ? facts : { ...facts, refusal: explain(refusal, said) };
  const status = statusOf(shown, deps.clock.nowMs());
  await deps.cluster.patchStatus(MigrationSources, source, status, signal);
  if (refusal !== undefined) throw refusal;
  return settled;
}

function observe(key: Key, { cluster, agents }: ControllerDeps): Facts | undefined {
  const source = cluster.get(MigrationSources, key);
  if (source === undefined) return undefined;
  const { name } = source.metadata;
  const wished = agentSpec(source.spec);
  const held = findAll(agents, "sources", name);
  const followed = agents.all().filter(({ problem }) => problem === undefined);
  return {
    source,
    wished,
    agents: agents.all(),
    behind: followed.filter(({ sources }) => !isSame(sources.get(name)?.spec, wished)),
    known: held.map(({ agent }) => agent),
    volumes: cluster.find(migratedBySource, name),
    usedBytes: held.reduce((sum, { view }) => sum + view.usedBytes, 0),
    problem: agentsProblem(agents),
  };
}

function agentSpec({ clusterName, clusterUid, caBundle, quota, pointsKept }: MigrationSourceSpec): SourceSpec {
  const quotaBytes = quota === undefined ? undefined : parseQuantity(quota.bytes);
  return { clusterName, caBundle, ...present({ clusterUid, quotaBytes, pointsKept }) };
}

function statusOf(facts: Facts, nowMs: number): MigrationSourceStatus {
  const { source, agents, behind, volumes, usedBytes } = facts;
  const received = volumes.flatMap(({ status }) => status?.newestPoint?.committedTime ?? []).sort();
  return {
    ...present({ observedGeneration: source.metadata.generation, lastReceivedTime: received.at(-1) }),
    conditions: judged(source.status?.conditions, [readiness(facts)], nowMs),
    agents: agents.length,
    informedAgents: agents.filter(({ problem }) => problem === undefined).length - behind.length,
    volumes: volumes.length,
    usedBytes,
  };
}

function readiness({ source, behind, problem, refusal }: Facts) {
  const { generation } = source.metadata;
  const found =
    refusal !== undefined
      ? { status: false, reason: reason.invalid, message: refusal }
      : problem !== undefined
        ? { status: false, reason: reason.agentUnreachable, message: problem }
        : behind.length > 0
          ? { status: false, reason: reason.applying, message: "Not all agents of this cluster have it yet." }
          : { status: true, reason: reason.ok, message: `Volumes of cluster ${source.spec.clusterName} are taken.` };
  return judge(conditionType.ready, generation, found);
}

/** Withdraws the consent everywhere. An agent that is away keeps it from going, for it would still take volumes. */
async function depart(facts: Facts, deps: ControllerDeps, signal: AbortSignal): Promise<Outcome> {
  const { source, known, problem } = facts;
  // The cache of a leader that has just begun may show one that is gone, and the agents have the consent of its successor.
  const present = await deps.cluster.read(MigrationSources, keyOf(source), signal);
  if (present?.metadata.uid !== source.metadata.uid) return settled;
  const followed = known.filter((agent) => agent.problem === undefined);
  const refusal = await refusalOfAny(followed, ({ api }) => api.removeSource(source.metadata.name));
  if (refusal !== undefined) throw refusal;
  if (problem === undefined) {
    await deps.cluster.removeFinalizer(MigrationSources, source, finalizer.source, signal);
    return settled;
  }
  const message = `It cannot be withdrawn from all agents: ${problem}. Bring back those that are away or, if they will not come back: longshore node forget.`;
  const found = { status: false, reason: reason.agentUnreachable, message };
  const judgement = judge(conditionType.deletable, source.metadata.generation, found);
  const nowMs = deps.clock.nowMs();
  const status = {
    ...statusOf(facts, nowMs),
    conditions: judged(source.status?.conditions, [readiness(facts), judgement], nowMs),
  };
  await deps.cluster.patchStatus(MigrationSources, source, status, signal);
  return settled;
}
