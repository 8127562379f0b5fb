// /v1 for the agent's own cluster: each request is one call of AgentApi.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { agentRoutes } from "../wire/routes.ts";
import type { Metadata } from "../wire/schemas.ts";
import { found, gone, type Handlers } from "./handler.ts";

type Routes = typeof agentRoutes;

export function agentHandlers(api: AgentApi): Handlers<Routes> {
  return {
    describe: async () => found(await api.describe()),
    async forgetMember({ params }) {
      await api.forgetMember(params.agentId);
      return gone;
    },
    ...volumeHandlers(api),
    ...sourceSideHandlers(api),
    ...targetSideHandlers(api),
    async changes({ query, lastEventId, signal }) {
      const since = sequenceOf(lastEventId ?? query.since ?? "0");
      return {
        kind: "events",
        name: "change",
        events: api.changes(since, signal),
        idOf: (change) => String(change.sequence),
      };
    },
  };
}

function volumeHandlers(api: AgentApi) {
  return {
    listVolumes: async () => found(await api.listVolumes()),
    getVolume: async ({ params }) => found(await api.getVolume(params.name)),
    async putVolume({ params, body, precondition }) {
      checkMetadata(body.metadata);
      const kind = await madeOrFound(() => api.getVolume(params.name));
      return { kind, body: await api.putVolume(params.name, body, precondition) };
    },
    async removeVolume({ params, precondition }) {
      await api.removeVolume(params.name, precondition);
      return gone;
    },
    async putSnapshot({ params }) {
      const before = await api.getVolume(params.volume);
      const isThere = before.snapshots.some((snapshot) => snapshot.name === params.name);
      return { kind: isThere ? "found" : "made", body: await api.putSnapshot(params.volume, params.name) };
    },
    putGroupSnapshot: async ({ params, body }) => found(await api.putGroupSnapshot(params.group, params.name, body)),
    async removeSnapshot({ params }) {
      const left = await api.removeSnapshot(params.volume, params.name);
      return left === undefined ? gone : { kind: "accepted", body: left };
    },
    async listExtents({ params, query: { base, from, max } }) {
      const numberOf = (text: string | undefined) => (text === undefined ? undefined : Number(text));
      const asked = { base, from: numberOf(from), max: numberOf(max) };
      return found(await api.listExtents(params.volume, params.name, asked));
    },
    putHold: async ({ params }) => found(await api.putHold(params.volume, params.name, params.owner)),
    async removeHold({ params, query }) {
      await api.removeHold(params.volume, params.name, { reason: query.reason ?? "user", owner: params.owner });
      return gone;
    },
  } satisfies Partial<Handlers<Routes>>;
}

function sourceSideHandlers(api: AgentApi) {
  return {
    listLocations: async () => found(await api.listLocations()),
    getLocation: async ({ params }) => found(await api.getLocation(params.name)),
    async putLocation({ params, body, precondition }) {
      const kind = await madeOrFound(() => api.getLocation(params.name));
      return { kind, body: await api.putLocation(params.name, body, precondition) };
    },
    async removeLocation({ params, query, precondition }) {
      await api.removeLocation(params.name, { ...precondition, force: query.force === "true" });
      return gone;
    },
    listJobs: async () => found(await api.listJobs()),
    getJob: async ({ params }) => found(await api.getJob(params.name)),
    async putJob({ params, body, precondition }) {
      const kind = await madeOrFound(() => api.getJob(params.name));
      return { kind, body: await api.putJob(params.name, body, precondition) };
    },
    async removeJob({ params }) {
      await api.removeJob(params.name);
      return gone;
    },
    async followJob({ params, signal }) {
      // Asked before the stream begins: a stream has begun with status 200 and can no longer say 404.
      await api.getJob(params.name);
      const events = api.followJob(params.name, signal);
      return { kind: "events", name: "job", events, idOf: (job) => String(job.revision) };
    },
  } satisfies Partial<Handlers<Routes>>;
}

function targetSideHandlers(api: AgentApi) {
  return {
    listSources: async () => found(await api.listSources()),
    getSource: async ({ params }) => found(await api.getSource(params.name)),
    async putSource({ params, body, precondition }) {
      const kind = await madeOrFound(() => api.getSource(params.name));
      return { kind, body: await api.putSource(params.name, body, precondition) };
    },
    async removeSource({ params, precondition }) {
      await api.removeSource(params.name, precondition);
      return gone;
    },
    listMigratedVolumes: async () => found(await api.listMigratedVolumes()),
    getMigratedVolume: async ({ params }) => found(await api.getMigratedVolume(params.name)),
    async removeMigratedVolume({ params, precondition }) {
      await api.removeMigratedVolume(params.name, precondition);
      return gone;
    },
    listGroups: async () => found(await api.listGroups()),
    getGroup: async ({ params, query }) => found(await api.getGroup(params.name, query)),
    listClones: async () => found(await api.listClones()),
    getClone: async ({ params }) => found(await api.getClone(params.name)),
    async putClone({ params, body }) {
      checkMetadata(body.metadata);
      const kind = await madeOrFound(() => api.getClone(params.name));
      const clone = await api.putClone(params.name, body);
      return { kind: clone.state === "Waiting" ? "accepted" : kind, body: clone };
    },
    async removeClone({ params }) {
      await api.removeClone(params.name);
      return gone;
    },
  } satisfies Partial<Handlers<Routes>>;
}

/** What a put will have done. Two first puts at once may both be told `made`; they are told the same thing otherwise. */
async function madeOrFound(get: () => Promise<unknown>): Promise<"made" | "found"> {
  try {
    await get();
    return "found";
  } catch (error) {
    if (codeOf(error) === "NotFound") return "made";
    throw error;
  }
}

const metadataBytesMax = 4096;

/** Goes with every job, so all of it together is bounded. */
export function checkMetadata(metadata: Metadata | undefined): void {
  const bytes = Buffer.byteLength(JSON.stringify(metadata ?? {}));
  if (bytes > metadataBytesMax)
    throw new LongshoreError("BadRequest", `metadata: ${bytes} bytes as JSON, ${metadataBytesMax} are allowed`);
}

function sequenceOf(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new LongshoreError("BadRequest", `not the sequence of a list or change: ${text}`);
}
