// The status of a MigrationLocation, from what each agent's probe found. Pure.
import type { MigrationLocation, MigrationLocationStatus } from "../api/migration-location.ts";
import { conditionType, reason } from "../api/names.ts";
import { type ErrorCode, errorTable } from "../domain/errors.ts";
import type { Judgement } from "../kube/conditions.ts";
import type { LocationState, LocationView } from "../wire/schemas.ts";
import { judge, judged, parseTime, present } from "./status-parts.ts";

export interface LocationFacts {
  readonly location: MigrationLocation;
  /** As each agent sees it, those that were not told of it yet left out. */
  readonly views: readonly LocationView[];
  /** How many of our agents are followed at the moment. */
  readonly agents: number;
  readonly agentsProblem: string | undefined;
  readonly volumes: number;
  /** Of dry runs: what enabling would bring here besides. */
  readonly planned: { readonly volumes: number; readonly bytes: number };
  /** What keeps the location from being set at the agents, such as an unknown time zone. */
  readonly invalid: string | undefined;
  /** Why it cannot go yet, while it is being deleted. */
  readonly inUse: string | undefined;
  /** Its bandwidth is nought at the moment. */
  readonly isPaused: boolean;
}

/** From the best to the worst; the worst that any agent sees counts, for that agent's volumes cannot be migrated. */
const states: readonly LocationState[] = ["reachable", "notConsented", "untrusted", "unreachable", "unknown"];

interface Found {
  readonly status: boolean | undefined;
  readonly reason: string;
  readonly message: string;
}

type Verdict = Record<"reachable" | "trusted" | "consented", Found>;

const ok: Found = { status: true, reason: reason.ok, message: "" };

/** Reachable, trusted and consented told apart: what comes after a failure is not known. */
function verdictOf(state: LocationState, message: string): Verdict {
  const unknown = (because: string): Found => ({ status: undefined, reason: because, message: "" });
  switch (state) {
    case "reachable":
      return { reachable: ok, trusted: ok, consented: ok };
    case "notConsented": {
      const found = { status: false, reason: reason.notConsented, message: advised(message, "NotConsented") };
      return { reachable: ok, trusted: ok, consented: found };
    }
    case "untrusted": {
      const found = { status: false, reason: reason.untrusted, message: advised(message, "Untrusted") };
      return { reachable: ok, trusted: found, consented: unknown(reason.untrusted) };
    }
    case "unreachable": {
      const found = { status: false, reason: reason.unreachable, message: advised(message, "Unreachable") };
      return { reachable: found, trusted: unknown(reason.unreachable), consented: unknown(reason.unreachable) };
    }
    default: {
      const found = { status: undefined, reason: reason.notProbed, message };
      return { reachable: found, trusted: found, consented: found };
    }
  }
}

/** What the probe found, and what to do about it. */
function advised(message: string, code: ErrorCode): string {
  return `${message}. ${errorTable[code].advice}`;
}

/** A probe that finds what was found before is recorded no more often than this. */
const probeRecordedEveryMs = 60_000;

export function locationStatus(facts: LocationFacts, nowMs: number): MigrationLocationStatus {
  const { location, views, volumes, planned } = facts;
  const before = location.status;
  const worst = worstOf(views);
  const reachable = views.find(({ state }) => state === "reachable") ?? worst;
  const { clusterUid = null, members = [], freeBytes = null, roundTripMs = null } = reachable ?? {};
  const isProbed = isProbeRecorded(before, worst);
  return {
    ...present({ observedGeneration: location.metadata.generation }),
    conditions: judged(before?.conditions, judgementsOf(facts, worst), nowMs),
    volumes,
    ...(planned.volumes > 0 && { plannedVolumes: planned.volumes, plannedBytes: planned.bytes }),
    ...present({
      clusterUid: clusterUid ?? before?.clusterUid,
      clusterName: clusterUid === null ? before?.clusterName : location.spec.clusterName,
      freeBytes: (isProbed ? freeBytes : before?.freeBytes) ?? undefined,
      lastProbeTime: isProbed ? (worst?.probedAt ?? undefined) : before?.lastProbeTime,
      roundTripMilliseconds: isProbed ? rounded(roundTripMs) : before?.roundTripMilliseconds,
      members: members.length === 0 ? before?.members : members.slice(0, 1000).map(memberOf),
    }),
  };
}

function worstOf(views: readonly LocationView[]): LocationView | undefined {
  return [...views].sort((left, right) => states.indexOf(right.state) - states.indexOf(left.state))[0];
}

function memberOf({ agentId, node, address, state }: LocationView["members"][number]) {
  return { id: agentId, node, address, ...present({ state }) };
}

function rounded(milliseconds: number | null): number | undefined {
  return milliseconds === null ? undefined : Math.round(milliseconds);
}

function isProbeRecorded(before: MigrationLocationStatus | undefined, view: LocationView | undefined): boolean {
  if (view?.probedAt == null) return false;
  const lastMs = parseTime(before?.lastProbeTime);
  // By the agent's clock alone, which may differ from ours, and may have been set back.
  const sinceMs = lastMs === undefined ? undefined : Date.parse(view.probedAt) - lastMs;
  return sinceMs === undefined || sinceMs < 0 || sinceMs >= probeRecordedEveryMs;
}

function judgementsOf(facts: LocationFacts, worst: LocationView | undefined): Judgement[] {
  const { location, inUse, isPaused } = facts;
  const { generation } = location.metadata;
  const verdict = verdictOf(worst?.state ?? "unknown", worst?.message || facts.agentsProblem || "Not probed yet.");
  return [
    judge(conditionType.ready, generation, readiness(facts, verdict)),
    judge(conditionType.reachable, generation, verdict.reachable),
    judge(conditionType.trusted, generation, verdict.trusted),
    judge(conditionType.consented, generation, verdict.consented),
    // Apart from whether it is ready: what runs may not send although it could.
    ...(isPaused ? [judge(conditionType.paused, generation, paused)] : []),
    ...(inUse === undefined
      ? []
      : [judge(conditionType.deletable, generation, { status: false, reason: reason.inUse, message: inUse })]),
  ];
}

const paused: Found = {
  status: true,
  reason: reason.paused,
  message: "Its bandwidth is 0 at the moment: no job is started, and those that run are suspended.",
};

function readiness(facts: LocationFacts, verdict: Verdict): Found {
  const { location, views, agents, agentsProblem, invalid } = facts;
  if (invalid !== undefined) return { status: false, reason: reason.invalid, message: invalid };
  const failed = [verdict.reachable, verdict.trusted, verdict.consented].find(({ status }) => status !== true);
  if (failed !== undefined) return failed;
  // One agent that is away holds up its own volumes only.
  if (agents === 0) {
    const message = agentsProblem ?? "no agent of this cluster answers";
    return { status: false, reason: reason.agentUnreachable, message };
  }
  if (views.length < agents) {
    return { status: false, reason: reason.applying, message: "Not all agents of this cluster know of it yet." };
  }
  if (location.spec.suspend === true) {
    return { status: true, reason: reason.suspended, message: "Suspended: no new job is started." };
  }
  if (facts.isPaused) return paused;
  const away = agentsProblem === undefined ? "" : ` Not of agents that are away: ${agentsProblem}.`;
  return { status: true, reason: reason.ok, message: `The cluster answers, is trusted, and takes our volumes.${away}` };
}
