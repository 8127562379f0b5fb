// The fake agent's rows as they begin, and the comparisons it decides by.
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Precondition } from "../../src/wire/agent-api.ts";
import type {
  AgentView,
  CloneSpec,
  CloneView,
  JobSpec,
  JobView,
  LocationView,
  MigratedVolumeView,
} from "../../src/wire/schemas.ts";

export type Writable<T> = { -readonly [K in keyof T]: T[K] };

export interface Versioned {
  name: string;
  revision: number;
}

export function check(present: Versioned | undefined, precondition: Precondition | undefined, what: string): void {
  const expected = precondition?.ifMatch;
  if (expected === undefined || present?.revision === expected) return;
  const found = present === undefined ? "does not exist" : `is at revision ${present.revision}`;
  throw new LongshoreError("PreconditionFailed", `${what} ${found}, not at ${expected}`);
}

export function same(left: unknown, right: unknown): boolean {
  return sorted(left) === sorted(right);
}

export function sorted(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

export function agentView({ clusterUid, clusterName, place }: Required<ViewOptions>): AgentView {
  const [agentId, node] = [`00000000-0000-4000-8000-00000000000${place}`, `node-${place}`];
  const port = 7400 + 20 * place;
  const members = [{ agentId, node, address: `127.0.0.1:${port}`, laneAddress: `127.0.0.1:${port + 1}` }];
  const space = { freeBytes: 2 ** 40, totalBytes: 2 ** 41 };
  return { agentId, node, version: "0.0.0", clusterUid, clusterName, backend: "copy", members, ...space };
}

interface ViewOptions {
  readonly clusterUid?: string;
  readonly clusterName?: string;
  readonly place?: number;
}

export function unprobed(name: string): Omit<LocationView, "spec"> {
  const nothing = { clusterUid: null, members: [], freeBytes: null, roundTripMs: null, probedAt: null };
  return { name, state: "unknown", message: "Not probed yet", ...nothing, volumes: 0, revision: 0 };
}

export function pending(name: string, spec: JobSpec): JobView {
  const counts = { epoch: 0, attempts: 0, bytesTotal: 0, bytesPunched: 0, bytesSent: 0, bytesStored: 0 };
  const times = { createdAt: "", startedAt: null, finishedAt: null, durationMs: null };
  const unknown = { from: null, to: null, mode: null, bytesPerSecond: null, etaSeconds: null, verified: null };
  const progress = { barrier: "None", unitsTotal: 0, unitsStored: 0, error: null } as const;
  return {
    name,
    spec,
    state: "Pending",
    ...counts,
    ...times,
    ...unknown,
    ...progress,
    participants: [],
    volumes: [],
    revision: 0,
  };
}

export function emptyMigrated(name: string, home: string): Omit<MigratedVolumeView, "source"> {
  const origin = {
    sourceClusterUid: "source-uid",
    sourceClusterName: "source",
    sourceVolumeUid: `${name}-uid`,
    sourceVolumeName: name,
  };
  const nothing = { diverged: false, transfer: null, points: [], waitingClones: 0, revision: 0 };
  return { name, ...origin, metadata: {}, sizeBytes: 2 ** 20, home, state: "Empty", ...nothing };
}

export function waiting(name: string, spec: CloneSpec): CloneView {
  const nothing = { pointId: null, sourceTime: null, volume: null, path: null, sizeBytes: null };
  const progress = { bytesTotal: null, bytesStored: null, requestedAt: "", servedAt: null, revision: 0 };
  return { name, spec: structuredClone(spec), state: "Waiting", ...nothing, ...progress };
}
