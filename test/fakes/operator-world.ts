// The operator's reconcilers in a world of fakes: an API server and one agent in memory, on a clock that stands still until
// told. The process can be killed at any effect, on the API server or at the agent, and started afresh; the world stays.
import { openMetrics } from "../../src/base/metrics.ts";
import type { Agents, SeenAgent } from "../../src/controllers/agents.ts";
import { openControllers, routeNews } from "../../src/controllers/controllers.ts";
import {
  MigrationLocations,
  MigrationSources,
  PersistentVolumeClaims,
  PersistentVolumes,
  SnapshotSchedules,
  StorageClasses,
} from "../../src/controllers/kinds.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import { keyOfAgentJob } from "../../src/domain/names.ts";
import type { Enqueue, KindRef } from "../../src/kube/cluster.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import { CrashPoint } from "./crash-point.ts";
import { FakeAgent } from "./fake-agent.ts";
import { FakeClock } from "./fake-clock.ts";
import { FakeCluster } from "./fake-cluster.ts";
import { FakeKubernetes } from "./fake-kubernetes.ts";
import { type Settled, settle } from "./settle.ts";

export const pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

export class OperatorWorld {
  readonly clock: FakeClock;
  readonly server: FakeKubernetes;
  /** The first of them. */
  readonly agent: FakeAgent;
  /** All of one cluster. */
  readonly agents: readonly FakeAgent[];
  /** Why the agents are not followed; the operator then goes by what it last saw. */
  agentProblem: string | undefined;
  /** Of a single one of them, by its id. */
  readonly agentProblems = new Map<string, string>();
  /** What the operator sees of the agent's volumes, when that is not what there is. */
  seenVolumes: SeenAgent["volumes"] | undefined;
  /** Called for each job that was given to the agent; succeeds it unless set. */
  onJob: (name: string) => void;
  cluster: FakeCluster;
  /** Of the process that ran last. */
  metrics = openMetrics();
  #enqueue: Enqueue | undefined;

  constructor({ agents = 1 }: { agents?: number } = {}) {
    this.clock = new FakeClock(Date.parse("2026-01-01T00:00:00Z"));
    this.server = new FakeKubernetes(this.clock);
    const nowMs = () => this.clock.nowMs();
    this.agents = Array.from({ length: agents }, (_, index) => new FakeAgent({ nowMs, place: index + 1 }));
    const [first, ...others] = this.agents as [FakeAgent, ...FakeAgent[]];
    this.agent = first;
    first.join(others);
    this.cluster = new FakeCluster({ server: this.server });
    this.onJob = (name) => this.holderOf(name)?.succeedJob(name, { mode: { kind: "Delta", reason: "CommonBase" } });
    for (const agent of this.agents) this.#listen(agent);
  }

  /** The first agent that has the job. */
  holderOf(job: string): FakeAgent | undefined {
    return this.agents.find(({ jobs }) => jobs.has(job));
  }

  #listen(agent: FakeAgent): void {
    const push = agent.feed.push.bind(agent.feed);
    agent.feed.push = (kind, name) => {
      push(kind, name);
      if (kind === "resync") return;
      this.#tell({ kind, name });
      const job = kind === "job" && this.holderOf(name) === agent ? agent.jobs.get(name) : undefined;
      if (job?.state === "Pending" && job.revision === 1) queueMicrotask(() => this.#begin(name));
    };
  }

  /** Runs the operator, as one process, for so long; or, when it is killed, until then. */
  async run(forMs = 0, crash = new CrashPoint()): Promise<Settled> {
    const endMs = this.clock.monotonicMs() + forMs;
    this.cluster = this.cluster.restarted(crash);
    const agents = this.#agents(crash);
    this.metrics = openMetrics();
    const { cluster, clock, metrics } = this;
    const controllers = openControllers({ cluster, agents, clock, metrics });
    const settled = await settle({
      cluster,
      clock,
      controllers,
      horizonMs: forMs,
      reconcilesMax: 20_000,
      start: (enqueue) => {
        this.#enqueue = enqueue;
        for (const { view } of this.agents) this.#tell({ kind: "synced", name: view.agentId });
        this.#tellAll();
      },
    });
    this.#enqueue = undefined;
    if (!settled.crashed) await this.clock.advance(endMs - this.clock.monotonicMs());
    return settled;
  }

  /** Runs until `untilMs` after the world's beginning, however often the process is killed on the way. */
  async runUntil(untilMs: number, crash?: CrashPoint): Promise<void> {
    const first = await this.run(untilMs - this.clock.monotonicMs(), crash);
    if (first.crashed) await this.run(untilMs - this.clock.monotonicMs());
  }

  /** As a user does it. */
  apply(kind: KindRef, name: string, content: Record<string, unknown>, metadata: Record<string, unknown> = {}): void {
    const draft = { ...content, metadata: { name, ...metadata } };
    this.server.apply(kind, draft as never, "argocd");
  }

  /** Sets annotations, as a user does it by hand. */
  annotate(kind: KindRef, name: string, annotations: Record<string, string | null>): void {
    const prefixed = Object.entries(annotations).map(([key, value]) => [`longshore.dev/${key}`, value]);
    this.server.edit(kind, { name }, { metadata: { annotations: Object.fromEntries(prefixed) } });
  }

  #isLost({ view }: FakeAgent): boolean {
    return this.agent.view.members.some(({ agentId, state }) => agentId === view.agentId && state === "lost");
  }

  #begin(name: string): void {
    if (this.holderOf(name)?.jobs.get(name)?.state === "Pending") this.onJob(name);
  }

  #tell(news: Parameters<ReturnType<typeof routeNews>>[0]): void {
    if (this.#enqueue === undefined || this.cluster.crash.isDead || this.agentProblem !== undefined) return;
    for (const { controller, key } of routeNews(this.cluster)(news)) this.#enqueue(controller, key);
  }

  #tellAll(): void {
    for (const agent of this.agents) this.#tellAllOf(agent);
  }

  #tellAllOf({ volumes, jobs, locations, sources, migratedVolumes, clones }: FakeAgent): void {
    for (const name of volumes.keys()) this.#tell({ kind: "volume", name });
    for (const name of jobs.keys()) this.#tell({ kind: "job", name });
    for (const name of locations.keys()) this.#tell({ kind: "location", name });
    for (const name of sources.keys()) this.#tell({ kind: "source", name });
    for (const name of migratedVolumes.keys()) this.#tell({ kind: "migratedVolume", name });
    for (const name of clones.keys()) this.#tell({ kind: "clone", name });
  }

  /** The fakes themselves in the place of their mirrors: whatever an agent holds is seen at once. */
  #agents(crash: CrashPoint): Agents {
    const apis = new Map(this.agents.map((agent) => [agent, mortal(agent, crash)]));
    const seen = (agent: FakeAgent): SeenAgent => {
      const { agentId } = agent.view;
      const problem = this.agentProblem ?? this.agentProblems.get(agentId);
      const api = problem === undefined ? (apis.get(agent) as AgentApi) : unanswered(agentId, problem);
      return { ...seenAgent(agent), api, problem, volumes: this.seenVolumes ?? agent.volumes };
    };
    return {
      all: () => this.agents.filter((agent) => !this.#isLost(agent)).map((agent) => seen(agent)),
      members: () => this.agent.view.members,
    };
  }
}

/** The agent as its mirror shows it when it is followed. */
export function seenAgent(agent: FakeAgent): SeenAgent {
  const { volumes, jobs, locations, sources, migratedVolumes, clones } = agent;
  const jobsOf = (job: string) => [...jobs.values()].filter(({ name }) => keyOfAgentJob(name)?.name === job);
  const held = { volumes, jobs, locations, sources, migratedVolumes, clones, jobsOf };
  return { id: agent.view.agentId, api: agent, problem: undefined, ...held };
}

/** What is asked of an agent that is not followed fails at once. */
function unanswered(agentId: string, problem: string): AgentApi {
  const refuse = async () => {
    throw new LongshoreError("Unreachable", `agent ${agentId} is away: ${problem}`);
  };
  return new Proxy({} as AgentApi, { get: () => refuse });
}

/** The agent as a process sees it that may be killed, or lose an answer, at any call that changes something. */
function mortal(agent: FakeAgent, crash: CrashPoint): AgentApi {
  return new Proxy(agent, {
    get(target, method) {
      const member = target[method as keyof FakeAgent];
      if (typeof member !== "function") return member;
      const call = member.bind(target) as (...parts: unknown[]) => unknown;
      if (!/^(put|remove)/.test(String(method))) {
        return (...parts: unknown[]) => {
          crash.check();
          return call(...parts);
        };
      }
      return (...parts: unknown[]) => {
        const names = parts.filter((part) => typeof part === "string").join("/");
        const lost = (name: string) => new LongshoreError("Unreachable", `${name}: the answer was lost`);
        return crash.effect(`agent ${String(method)} ${names}`, () => call(...parts), lost);
      };
    },
  });
}

/** A class, a volume with its claim, a schedule and a location, as in the README. */
export function sourceWorld(): OperatorWorld {
  const world = new OperatorWorld();
  void world.agent.putVolume("vol-1", { sizeBytes: 2 ** 20 });
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" } } });
  location(world, "berlin");
  world.apply(StorageClasses, "fast", {
    provisioner: "csi.longshore.dev",
    parameters: { migrationEnable: "true", migrationLocations: "berlin", schedulePolicy: "hourly" },
  });
  volume(world, "pv1", "vol-1");
  return world;
}

export function location(world: OperatorWorld, name: string, spec: Record<string, unknown> = {}): void {
  const seeds = [`agent.${name}.example:7420`];
  world.apply(MigrationLocations, name, { spec: { clusterName: name, seeds, caBundle: pem, ...spec } });
}

/** A PersistentVolume of class fast, bound to claim shop/db-NAME. */
export function volume(world: OperatorWorld, name: string, handle: string): void {
  const claim = { namespace: "shop", name: `db-${name}` };
  const labels = { app: "db" };
  world.apply(PersistentVolumeClaims, claim.name, { spec: { volumeName: name } }, { namespace: "shop", labels });
  world.apply(PersistentVolumes, name, {
    spec: {
      storageClassName: "fast",
      claimRef: claim,
      csi: { driver: "csi.longshore.dev", volumeHandle: handle, fsType: "ext4" },
    },
  });
}

/** A consent with a rule that publishes everything in namespace restore; `more` is added to the rule. */
export function targetWorld(more: Record<string, unknown> = {}): OperatorWorld {
  const world = new OperatorWorld();
  const publications = [{ namespace: "restore", name: "{claim}-copy", ...more }];
  world.apply(MigrationSources, "east", { spec: { clusterName: "east", caBundle: pem, publications } });
  return world;
}
