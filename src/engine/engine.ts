// The engine of one agent: volumes, snapshots, jobs, and what arrives from other clusters. It implements the agent's API
// directly; the HTTP service in front of it (src/agent/) only translates. Everything outside comes in by EngineOptions.
import { keyedLock } from "../base/keyed-lock.ts";
import { taskGroup } from "../base/task-group.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { MemberApi } from "../wire/member.ts";
import type { PeerApi } from "../wire/peer.ts";
import type { List } from "../wire/schemas.ts";
import { understoodHere } from "../wire/understood.ts";
import { openChangeFeed } from "./changes.ts";
import { Clones } from "./clones.ts";
import type { Core } from "./core.ts";
import type { EngineOptions } from "./engine-options.ts";
import { Gauges } from "./gauges.ts";
import { GroupParts } from "./group-parts.ts";
import { GroupSnapshots } from "./group-snapshots.ts";
import { Groups } from "./groups.ts";
import { Homes } from "./homes.ts";
import { Jobs } from "./jobs.ts";
import type { Journal } from "./journal.ts";
import { Locations } from "./locations.ts";
import { Members } from "./members.ts";
import { MigratedVolumes } from "./migrated.ts";
import { recover, tidy } from "./recovery.ts";
import { Sources } from "./sources.ts";
import { Target } from "./target.ts";
import { Volumes } from "./volumes.ts";

export interface Engine {
  /** Kept with its data, so that an agent on an empty folder is another one. */
  readonly agentId: string;
  /** What this cluster's operator and CSI driver may ask for. */
  readonly api: AgentApi;
  /**
   * The migration protocol for a foreign cluster. `verifiedUnder` names the sources whose CA bundle the caller's
   * certificate was verified with; throws `NotConsented` when none of them stands for that cluster.
   */
  peer(clusterUid: string, verifiedUnder: readonly string[]): PeerApi;
  /** What the other agents of this cluster may ask for. */
  readonly member: MemberApi;
  /** All consents: whose CA bundle may speak for which cluster; `clusterUid` null while it is not known. */
  consents(): readonly {
    readonly name: string;
    readonly clusterName: string;
    readonly clusterUid: string | null;
    readonly caBundle: string;
  }[];
  /** Calls back when {@link Engine.consents} changed. Returns the unsubscriber. */
  onConsentChange(listener: () => void): () => void;
  /** A lane failed; `owner` and `lane` are those of its ticket. For the log: whoever waits for its units is told by it. */
  laneFailed(owner: string, lane: number, error: Error): void;
  /** Stops background work and jobs where they are (they go on after the next start), and closes the journal. */
  close(): Promise<void>;
}

const tickMs = 1_000;
const slowTickMs = 10_000;

/** Opens the journal, brings rows and files together, and goes on with what was unfinished. */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const journal = options.openJournal(options.dataDir);
  try {
    return await start(options, journal);
  } catch (error) {
    journal.close();
    throw error;
  }
}

async function start(options: EngineOptions, journal: Journal): Promise<Engine> {
  const base = {
    ...options,
    agentId: identify(options, journal),
    journal,
    lock: keyedLock(),
    feed: openChangeFeed(options.clock.nowMs()),
    tasks: taskGroup(options.log),
  };
  const members = new Members(base);
  const core: Core = { ...base, members };
  const volumes = new Volumes(core);
  const migrated = new MigratedVolumes(core);
  const sources = new Sources(core);
  const locations = new Locations(core);
  const homes = new Homes(core, { migrated });
  const clones = new Clones(core, { migrated, volumes });
  const jobs = new Jobs(core, { volumes, locations });
  const groups = new Groups(core, { sources, homes });
  const target = new Target(core, { migrated, sources, clones, groups, homes, voters: members });
  const groupParts = new GroupParts(core, { volumes });
  const groupSnapshots = new GroupSnapshots(core, groupParts);
  const member = memberApi({ volumes, members, homes, groups, target, groupParts, jobs });
  members.serve(member);
  const stored = { volumes, migrated, clones, homes, groups };
  await recover(core, stored);
  core.tasks.spawn("housekeeping", (signal) =>
    every(core, tickMs, signal, async () => {
      groups.expire();
      target.expire();
      clones.expire();
      groupSnapshots.expire();
      jobs.expire();
      jobs.admit();
    }),
  );
  const gauges = new Gauges(core);
  core.tasks.spawn("gauges", (signal) =>
    every(core, slowTickMs, signal, async () => {
      journal.keepBallast();
      gauges.update();
    }),
  );
  core.tasks.spawn("tidying", (signal) => every(core, slowTickMs, signal, () => tidyAll(core, stored)));
  core.tasks.spawn("members", (signal) => every(core, core.limits.memberIntervalMs, signal, () => members.round()));
  const { memberIntervalMs } = core.limits;
  core.tasks.spawn("names", (signal) => every(core, memberIntervalMs, signal, () => volumes.names.round()));
  core.tasks.spawn("probes", (signal) => every(core, core.limits.probeIntervalMs, signal, () => locations.probeAll()));
  return {
    agentId: core.agentId,
    member,
    api: agentApi(core, { volumes, groupSnapshots, migrated, sources, groups, locations, clones, jobs, target }),
    peer: (clusterUid, verifiedUnder) => {
      const source = sources.admit(clusterUid, verifiedUnder);
      return target.for({ clusterUid, source: source.name });
    },
    consents: () =>
      sources.rows().map(({ name, clusterUid, spec: { clusterName, caBundle } }) => ({
        name,
        clusterName,
        clusterUid,
        caBundle,
      })),
    onConsentChange: (listener) => sources.onChange(listener),
    laneFailed: (owner, lane, error) => core.log.info({ migratedVolume: owner, lane, err: error }, "lane failed"),
    async close() {
      await Promise.all([core.tasks.close(), groupParts.close(), locations.close(), members.close()]);
      await target.close();
      journal.close();
    },
  };
}

/** The agent's id is kept with its data; data of another cluster is refused. */
function identify({ dice, cluster, dataDir }: EngineOptions, journal: Journal): string {
  const known = journal.get<{ id: string; clusterUid: string }>("SELECT id, clusterUid FROM agent");
  if (known === undefined) {
    const id = dice.uuid();
    journal.transaction(() => journal.run("INSERT INTO agent (id, clusterUid) VALUES (?,?)", id, cluster.uid));
    return id;
  }
  if (known.clusterUid !== cluster.uid) {
    throw new LongshoreError(
      "BadRequest",
      `${dataDir} belongs to cluster ${known.clusterUid}, the certificate says ${cluster.uid}; use the data of this cluster`,
    );
  }
  return known.id;
}

interface Stored {
  readonly volumes: Volumes;
  readonly migrated: MigratedVolumes;
  readonly clones: Clones;
  readonly homes: Homes;
  readonly groups: Groups;
}

/** What is half made, half gone, or of no use any more. */
async function tidyAll(core: Core, stored: Stored): Promise<void> {
  stored.homes.tidy();
  await tidy(core, stored);
  await stored.groups.tidy();
}

/** Runs `work` now and then every `intervalMs`; a failed round is logged and the next one comes all the same. */
async function every(core: Core, intervalMs: number, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    try {
      await work();
    } catch (error) {
      if (!signal.aborted) core.log.error({ err: error }, "housekeeping failed");
    }
    await core.clock.sleep(intervalMs, signal);
  }
}

interface MemberParts {
  readonly volumes: Volumes;
  readonly members: Members;
  readonly homes: Homes;
  readonly groups: Groups;
  readonly target: Target;
  readonly groupParts: GroupParts;
  readonly jobs: Jobs;
}

function memberApi({ volumes, members, homes, groups, target, groupParts, jobs }: MemberParts): MemberApi {
  return {
    meet: (meeting) => members.meet(meeting),
    acquaintance: async () => ({ isAcquainted: members.isAcquainted() }),
    claimName: (claim) => volumes.names.answer(claim),
    volumeNames: async (request) => volumes.names.list(request),
    copies: (request) => homes.copies(request),
    place: (request) => homes.place(request),
    decision: async (query) => groups.decision(query),
    memberOutcome: async (query) => target.memberOutcome(query),
    holdings: (request) => groupParts.holdings(request),
    freeze: (request) => groupParts.freeze(request),
    snapshotFrozen: (part) => groupParts.snapshotFrozen(part),
    thaw: (ref) => groupParts.thaw(ref),
    confirmGroup: (part) => groupParts.confirm(part),
    discardGroup: (part) => groupParts.discard(part),
    ...jobs.member,
  };
}

interface Parts {
  readonly volumes: Volumes;
  readonly groupSnapshots: GroupSnapshots;
  readonly migrated: MigratedVolumes;
  readonly sources: Sources;
  readonly groups: Groups;
  readonly locations: Locations;
  readonly clones: Clones;
  readonly jobs: Jobs;
  readonly target: Target;
}

function agentApi(core: Core, parts: Parts): AgentApi {
  const { volumes, groupSnapshots, migrated, sources, groups, locations, clones, jobs, target } = parts;
  const list = async <T>(items: T[]): Promise<List<T>> => ({ items, sequence: core.feed.sequence });
  return {
    describe: () => describeAgent(core),
    forgetMember: (agentId) => core.members.forget(agentId),
    listVolumes: () => list(volumes.list()),
    getVolume: async (name) => volumes.get(name),
    putVolume: (name, spec, precondition) => volumes.put(name, spec, precondition),
    removeVolume: (name, precondition) => volumes.remove(name, precondition),
    putSnapshot: (volume, name) => volumes.snapshots.take(volume, name),
    putGroupSnapshot: (group, name, spec) => groupSnapshots.put(group, name, spec),
    removeSnapshot: (volume, name) => volumes.snapshots.release(volume, name),
    listExtents: (volume, snapshot, query) => volumes.extents.list(volume, snapshot, query),
    putHold: async (volume, snapshot, owner) => volumes.snapshots.putHold(volume, snapshot, owner),
    removeHold: (volume, snapshot, hold) => volumes.snapshots.removeHold(volume, snapshot, hold),
    listLocations: () => list(locations.list()),
    getLocation: async (name) => locations.get(name),
    putLocation: (name, spec, precondition = {}) => locations.put(name, spec, precondition),
    removeLocation: (name, removal = {}) => locations.remove(name, removal, () => jobs.abandon(name)),
    listJobs: () => list(jobs.list()),
    getJob: async (name) => jobs.get(name),
    putJob: async (name, spec, precondition = {}) => jobs.put(name, spec, precondition),
    removeJob: async (name) => jobs.remove(name),
    followJob: (name, signal) => jobs.follow(name, signal),
    listSources: () => list(sources.list()),
    getSource: async (name) => sources.get(name),
    putSource: async (name, spec, precondition = {}) => sources.put(name, spec, precondition),
    removeSource: async (name, precondition = {}) => sources.remove(name, precondition),
    listMigratedVolumes: () => list(migrated.list()),
    getMigratedVolume: async (name) => migrated.get(name),
    removeMigratedVolume: (name, precondition = {}) => target.remove(name, precondition),
    listGroups: () => list(groups.list()),
    getGroup: async (name, choice) => groups.get(name, choice),
    listClones: () => list(clones.list()),
    getClone: async (name) => clones.get(name),
    putClone: (name, spec) => clones.put(name, spec),
    removeClone: (name) => clones.remove(name),
    changes: (since, signal) => core.feed.follow(since, signal),
  };
}

async function describeAgent({ agentId, node, version, cluster, storage, members }: Core) {
  members.checkPresent();
  const space = await storage.space();
  return {
    agentId,
    node,
    version,
    clusterUid: cluster.uid,
    clusterName: cluster.name,
    backend: storage.kind,
    members: members.all(),
    isAcquainted: members.isAcquainted(),
    ...space,
    understands: understoodHere(),
  };
}
