// MigrationLocation → every agent: where volumes may be migrated to, and how fast at the moment. What the agents' probes find
// becomes the status. It does not go while volumes use it.
import type { MigrationLocation, MigrationLocationSpec } from "../api/migration-location.ts";
import { annotation, conditionType, eventReason, finalizer } from "../api/names.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { bandwidthAt, leastRate } from "../domain/bandwidth.ts";
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import {
  again,
  type Controller,
  counting,
  type Key,
  keyOf,
  type Outcome,
  type ReconcileContext,
  settled,
} from "../kube/cluster.ts";
import { conditionOf, isConditionTrue } from "../kube/conditions.ts";
import type { LocationSpec } from "../wire/schemas.ts";
import { agentsProblem, findAll, followedAgents, type SeenAgent } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { MigrationLocations, migrationsByLocation, VolumeMigrations } from "./kinds.ts";
import { type LocationFacts, locationStatus } from "./location-status.ts";
import { explain, refusalOfAny } from "./refusal.ts";
import { isSame, present } from "./status-parts.ts";

export function migrationLocationController(deps: ControllerDeps): Controller {
  return {
    name: controllerName.migrationLocation,
    kind: MigrationLocations,
    watches: [
      counting<VolumeMigration>(VolumeMigrations, ({ spec, status }) =>
        [...spec.policy.locations, ...(status?.locations ?? []).map(({ name }) => name)].map((name) => ({ name })),
      ),
    ],
    // Each asks all agents: one that hangs there keeps no other waiting.
    laneOf: ({ name }) => name,
    reconcile: (key, context) => reconcile(key, deps, context),
  };
}

interface Wish {
  readonly spec: LocationSpec;
  /** Until when it holds; `undefined` for good. */
  readonly untilMs: number | undefined;
  /** The present limit is nought: nothing may be sent, for which agents have no rate. */
  readonly isPaused: boolean;
}

const transports = { TLS: "tls", Kernel: "kernel" } as const;
const verifications = { Media: "media", Memory: "memory", None: "none" } as const;

/** What the agents shall know of a location at `nowMs`. Throws `BadRequest`. */
function agentSpec(
  { clusterName, clusterUid, seeds, caBundle, limits, bandwidth, ...how }: MigrationLocationSpec,
  nowMs: number,
): Wish {
  const { bytesPerSecond, untilMs } = bandwidth === undefined ? {} : bandwidthAt(bandwidth, nowMs);
  const isPaused = bytesPerSecond === 0;
  // Told to the agents before what runs is suspended, and perhaps, after a crash, long before.
  const bytesPerSecondMax = isPaused ? leastRate(bandwidth ?? {}) : bytesPerSecond;
  const spec = {
    clusterName,
    seeds: [...seeds],
    caBundle,
    ...present({
      ...{ clusterUid, jobsMax: limits?.jobs, bytesPerSecondMax },
      transport: how.transport && transports[how.transport],
      verification: how.verification && verifications[how.verification],
    }),
  };
  return { spec, untilMs, isPaused };
}

interface Facts extends LocationFacts {
  readonly wished: Wish | undefined;
  /** The agents that do not know the location as it is wished. */
  readonly behind: readonly SeenAgent[];
  readonly known: readonly SeenAgent[];
}

async function reconcile(key: Key, deps: ControllerDeps, { signal }: ReconcileContext): Promise<Outcome> {
  const nowMs = deps.clock.nowMs();
  const facts = observe(key, deps, nowMs);
  if (facts === undefined) return settled;
  const { location } = facts;
  if (location.metadata.deletionTimestamp !== undefined) return depart(facts, deps, signal);
  if (location.metadata.finalizers?.includes(finalizer.location) !== true) {
    // Before any agent hears of it: what they are told has to be taken back when it goes.
    await deps.cluster.addFinalizer(MigrationLocations, location, finalizer.location, signal);
    return settled;
  }
  return arrive(facts, deps, signal, nowMs);
}

function observe(key: Key, { cluster, agents }: ControllerDeps, nowMs: number): Facts | undefined {
  const location = cluster.get(MigrationLocations, key);
  if (location === undefined) return undefined;
  const { name } = location.metadata;
  const wish = attemptSpec(location.spec, nowMs);
  const wished = typeof wish === "string" ? undefined : wish;
  const held = findAll(agents, "locations", name);
  const followed = followedAgents(agents);
  const seen = held.filter(({ agent }) => agent.problem === undefined);
  const isBehind = ({ locations }: SeenAgent) => wished && !isSame(locations.get(name)?.spec, wished.spec);
  const users = cluster.find(migrationsByLocation, name);
  return {
    location,
    // What agents that are away found out before is no news of the location, unless there is no other.
    views: (followed.length > 0 ? seen : held).map(({ view }) => view),
    agents: followed.length,
    agentsProblem: agentsProblem(agents),
    volumes: users.filter(({ spec }) => spec.policy.enabled && spec.policy.locations.includes(name)).length,
    planned: plannedOf(users.filter(({ spec }) => spec.policy.dryRun === true && spec.policy.locations.includes(name))),
    invalid: typeof wish === "string" ? wish : undefined,
    inUse: undefined,
    // What cannot be followed changes nothing at the agents, nor here.
    isPaused: wished?.isPaused ?? isConditionTrue(location.status?.conditions, conditionType.paused),
    wished,
    behind: followed.filter((agent) => isBehind(agent)),
    known: held.map(({ agent }) => agent),
  };
}

function plannedOf(migrations: readonly VolumeMigration[]): LocationFacts["planned"] {
  const bytes = migrations.reduce((sum, { status }) => sum + (status?.sizeBytes ?? 0), 0);
  return { volumes: migrations.length, bytes };
}

/** What was wrong with the spec, instead of what the agents shall know, where it cannot be followed. */
function attemptSpec(spec: MigrationLocationSpec, nowMs: number): Wish | string {
  try {
    return agentSpec(spec, nowMs);
  } catch (error) {
    if (codeOf(error) !== "BadRequest") throw error;
    return describe(error);
  }
}

async function arrive(facts: Facts, deps: ControllerDeps, signal: AbortSignal, nowMs: number): Promise<Outcome> {
  const { location, wished } = facts;
  const { name } = location.metadata;
  const refusal = wished && (await refusalOfAny(facts.behind, ({ api }) => api.putLocation(name, wished.spec)));
  const said = conditionOf(location.status?.conditions, conditionType.ready)?.message;
  const status = locationStatus(refusal === undefined ? facts : { ...facts, invalid: explain(refusal, said) }, nowMs);
  await deps.cluster.patchStatus(MigrationLocations, location, status, signal);
  tellReadiness(location, status, deps);
  if (refusal !== undefined) throw refusal;
  return wished?.untilMs === undefined ? settled : again(Math.max(0, wished.untilMs - nowMs));
}

function tellReadiness(
  location: MigrationLocation,
  status: NonNullable<MigrationLocation["status"]>,
  { cluster }: ControllerDeps,
): void {
  const isReady = isConditionTrue(status.conditions, conditionType.ready);
  const before = location.status?.conditions?.find(({ type }) => type === conditionType.ready);
  const now = status.conditions?.find(({ type }) => type === conditionType.ready);
  if (now === undefined || before?.status === now.status || now.status === "Unknown") return;
  if (isReady) cluster.event(location, { type: "Normal", reason: eventReason.locationReady, message: now.message });
  else cluster.event(location, { type: "Warning", reason: eventReason.locationNotReady, message: now.message });
}

/** Takes the location back from the agents, once nothing uses it; until then the status says what does. */
async function depart(facts: Facts, deps: ControllerDeps, signal: AbortSignal): Promise<Outcome> {
  const { location } = facts;
  const { cluster, clock } = deps;
  // The cache of a leader that has just begun may show one that is gone, and the agents have what its successor says.
  const present = await cluster.read(MigrationLocations, keyOf(location), signal);
  if (present?.metadata.uid !== location.metadata.uid) return settled;
  const usedBy = (await remainingUse(facts, deps)) ?? (await withdraw(facts));
  if (usedBy === undefined) {
    await cluster.removeFinalizer(MigrationLocations, location, finalizer.location, signal);
    return settled;
  }
  const status = locationStatus({ ...facts, inUse: usedBy }, clock.nowMs());
  await cluster.patchStatus(MigrationLocations, location, status, signal);
  const before = location.status?.conditions?.find(({ type }) => type === conditionType.deletable);
  if (before?.message !== usedBy) {
    cluster.event(location, { type: "Warning", reason: eventReason.locationInUse, message: usedBy });
  }
  return again(departEveryMs);
}

const departEveryMs = 15_000;

async function remainingUse(facts: Facts, { cluster }: ControllerDeps): Promise<string | undefined> {
  const { name } = facts.location.metadata;
  if (facts.agentsProblem !== undefined) return `It cannot be taken back from all agents: ${facts.agentsProblem}`;
  const users = cluster
    .find(migrationsByLocation, name)
    .filter(({ spec }) => spec.policy.enabled && spec.policy.locations.includes(name))
    .map(({ metadata }) => metadata.name);
  if (users.length === 0) return undefined;
  const shown = users.slice(0, usersShown).join(", ");
  const rest = users.length > usersShown ? ` and ${users.length - usersShown} more` : "";
  return `The policies of these volumes name it: ${shown}${rest}. Remove it from their classes or annotations first.`;
}

const usersShown = 10;

/** Why an agent does not let go of it, if one does not. */
async function withdraw({ location, known }: Facts): Promise<string | undefined> {
  const { name, annotations } = location.metadata;
  const force = annotations?.[annotation.releaseHolds] === "true";
  for (const { api } of known) {
    try {
      await api.removeLocation(name, { force });
    } catch (error) {
      if (!(error instanceof LongshoreError) || error.code !== "InUse") throw error;
      return `${error.message}. To give up these bases knowingly, so that the next migration of these volumes starts anew, set the annotation ${annotation.releaseHolds}: "true".`;
    }
  }
  return undefined;
}
