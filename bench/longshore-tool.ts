// This project: two agents as processes of their own, each with a disk, joined as source and target over loopback. A run
// is one job for each volume, through the agent's API, from the request until it is Released.
import { glob, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, describe } from "../src/domain/errors.ts";
import type { AgentApi } from "../src/wire/agent-api.ts";
import type { JobView, LocationSpec } from "../src/wire/schemas.ts";
import { eventually } from "../test/e2e/process.ts";
import { type StorageCluster, startStorageCluster } from "../test/e2e/storage-cluster.ts";
import type { ToolName } from "./cases.ts";
import { mountDisks } from "./disks.ts";
import { resetPeak, residentMiB } from "./process-memory.ts";
import { type Memory, NotAvailable, type Session, type SessionOptions, type Tool, type Transfer } from "./tool.ts";

type LongshoreName = Extract<ToolName, `longshore-${string}`>;

/** What sets the variants apart, as a location says it; nothing for what is the default. */
export type Variant = Pick<LocationSpec, "transport" | "verification">;
const variants: Readonly<Record<LongshoreName, Variant>> = {
  "longshore-tls": {},
  "longshore-tls-noverify": { verification: "none" },
  "longshore-kernel": { transport: "kernel" },
  "longshore-kernel-noverify": { transport: "kernel", verification: "none" },
};

const location = "target";
/** With so many jobs at once their changes are gathered for a while, as the operator gathers them. */
const gatheredMin = 16;
const gatherMs = 50;
/** Requests under way at once, as the operator's controllers have. */
const requestsMax = 16;

export function longshoreTool(name: LongshoreName): Tool {
  const { transport = "tls", verification = "media" } = variants[name];
  return {
    name,
    describe: async () => `whole jobs through the agents' API, transport ${transport}, verification ${verification}`,
    open: (options) => openLongshore(variants[name], options),
  };
}

export async function openLongshore(variant: Variant, options: SessionOptions): Promise<LongshoreSession> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const disks = await mountDisks(options.options.fileSystem, options.case);
    closers.push(() => disks.unmount());
    const starting = (["source", "target"] as const).map(async (name) => {
      const side = await startSide(name, disks[name], options);
      closers.push(() => side.stop());
      return side;
    });
    // Each is awaited to its end, so that what it started is known when the other one fails.
    await Promise.allSettled(starting);
    const [source, target] = (await Promise.all(starting)) as [StorageCluster, StorageCluster];
    await pair(source, target, variant);
    const session = new LongshoreSession({ source, target, options, close });
    await session.prepare();
    return session;
  } catch (error) {
    await close();
    throw error;
  }
}

async function startSide(name: string, disk: string, { folder, options }: SessionOptions): Promise<StorageCluster> {
  const own = join(folder, name);
  await mkdir(own, { recursive: true });
  return profiled(options.profile, () =>
    startStorageCluster({
      name,
      folder: own,
      dataDir: join(disk, "longshore"),
      backend: "reflink",
      // The agent's defaults, which the tests' clusters change.
      limits: { reserve: "64Mi", probeInterval: "30s", lanesPerJob: options.lanes },
    }),
  );
}

/** Has the processes that `start` starts leave a CPU profile when they end. */
async function profiled<T>(folder: string | undefined, start: () => Promise<T>): Promise<T> {
  if (folder === undefined) return start();
  const before = process.env.NODE_OPTIONS;
  process.env.NODE_OPTIONS = `--cpu-prof --cpu-prof-dir=${folder}`;
  try {
    return await start();
  } finally {
    if (before === undefined) delete process.env.NODE_OPTIONS;
    else process.env.NODE_OPTIONS = before;
  }
}

async function pair(source: StorageCluster, target: StorageCluster, variant: Variant): Promise<void> {
  await target.api.putSource("source", source.asSource());
  const spec: LocationSpec = { ...target.asLocation(), ...variant };
  try {
    await source.api.putLocation(location, spec);
  } catch (error) {
    if (codeOf(error) !== "BadRequest") throw error;
    throw new NotAvailable(`the agent refuses ${JSON.stringify(variant)}: ${describe(error).split("\n")[0]}`);
  }
  await isReachable(source);
}

async function isReachable({ api }: StorageCluster): Promise<void> {
  await eventually("the target being reachable", async () => {
    const { state, message } = await api.getLocation(location);
    if (state !== "reachable") throw new Error(`it is ${state}: ${message}`);
    return true;
  });
}

interface SessionParts {
  readonly source: StorageCluster;
  readonly target: StorageCluster;
  readonly options: SessionOptions;
  readonly close: () => Promise<void>;
}

export class LongshoreSession implements Session {
  readonly source: StorageCluster;
  readonly target: StorageCluster;
  readonly close: () => Promise<void>;
  readonly #volumes: string[];
  readonly #volumeBytes: number;
  readonly #profile: string | undefined;
  readonly #paths: string[] = [];
  /** Point ids by volume and step. */
  readonly #points = new Map<string, string>();
  readonly #idleMiB = new Map<StorageCluster, number>();
  #memory: Memory | undefined;

  constructor({ source, target, options, close }: SessionParts) {
    this.source = source;
    this.target = target;
    this.close = close;
    this.#volumes = Array.from({ length: options.case.volumes }, (_, index) => `volume-${index}`);
    this.#volumeBytes = options.case.volumeBytes;
    this.#profile = options.options.profile;
  }

  async prepare(): Promise<void> {
    for (const name of this.#volumes) {
      const { path } = await this.source.api.putVolume(name, { sizeBytes: this.#volumeBytes });
      this.#paths.push(path);
    }
    this.#noteIdle();
  }

  livePath(volume: number): string {
    const path = this.#paths[volume];
    if (path === undefined) throw new RangeError(`there is no volume ${volume}`);
    return path;
  }

  async capture(step: number): Promise<void> {
    for (const name of this.#volumes) {
      const { pointId } = await this.source.api.putSnapshot(name, `s${step}`);
      this.#points.set(`${name} ${step}`, pointId);
    }
  }

  async transfer(step: number): Promise<Transfer> {
    const wanted = new Map(this.#volumes.map((name) => [`job-${step}-${name}`, name]));
    const watch = await watchJobs(this.source.api, [...wanted.keys()]);
    try {
      const begin = performance.now();
      const left = wanted.entries();
      const put = async () => {
        for (const [job, volume] of left) await this.source.api.putJob(job, { volume, location, snapshot: `s${step}` });
      };
      const [jobs] = await Promise.all([watch.finished, ...Array.from({ length: requestsMax }, put)]);
      const ms = performance.now() - begin;
      return { ms, bytesSent: jobs.reduce((sum, job) => sum + job.bytesSent, 0) };
    } finally {
      await watch.stop();
    }
  }

  async copyPath(volume: number, step: number): Promise<string> {
    const name = this.#volumes[volume];
    const { items } = await this.target.api.listMigratedVolumes();
    const newest = items.find(({ sourceVolumeName }) => sourceVolumeName === name)?.points.at(-1)?.pointId;
    const wanted = this.#points.get(`${name} ${step}`);
    if (wanted === undefined || newest !== wanted) throw new Error(`the newest copy of ${name} is not step ${step}`);
    // A point without changes lies in the file of the one before it.
    for (let from = step; from > 0; from--) {
      for await (const found of glob(`volumes/*/points/${this.#points.get(`${name} ${from}`)}.img`, {
        cwd: this.target.dataDir,
      })) {
        return join(this.target.dataDir, found);
      }
    }
    throw new Error(`the target has no file of ${name}, step ${step}`);
  }

  async forget(): Promise<void> {
    const { items } = await this.target.api.listMigratedVolumes();
    for (const { name } of items) await this.target.api.removeMigratedVolume(name);
  }

  /** As the operator does with what has expired and arrived; the base hold keeps it until the next job moves the base. */
  async tidy(step: number): Promise<void> {
    for (const name of this.#volumes) await this.source.api.removeSnapshot(name, `s${step}`);
  }

  async restart(): Promise<void> {
    this.#noteMemory();
    await Promise.all([this.source, this.target].map((side) => side.agent().signal("SIGTERM")));
    for (const side of [this.target, this.source]) await profiled(this.#profile, () => side.start());
    await isReachable(this.source);
    this.#noteIdle();
  }

  memory(): Memory | undefined {
    this.#noteMemory();
    return this.#memory;
  }

  #noteIdle(): void {
    for (const side of [this.source, this.target]) {
      const { pid } = side.agent();
      this.#idleMiB.set(side, residentMiB(pid, "now") ?? 0);
      resetPeak(pid);
    }
  }

  #noteMemory(): void {
    for (const side of [this.source, this.target]) {
      const peakRssMiB = residentMiB(side.agent().pid, "peak") ?? 0;
      const idleRssMiB = this.#idleMiB.get(side) ?? 0;
      const before = this.#memory;
      const growthMiB = Math.max(before?.growthMiB ?? 0, peakRssMiB - idleRssMiB);
      const isLarger = before === undefined || peakRssMiB > before.peakRssMiB;
      this.#memory = isLarger ? { peakRssMiB, idleRssMiB, growthMiB } : { ...before, growthMiB };
    }
  }
}

interface JobWatch {
  readonly finished: Promise<readonly JobView[]>;
  stop(): Promise<void>;
}

/**
 * Follows the agent's change stream, as the operator does, and asks for the jobs it names. The stream is open when this
 * resolves, so that nothing of it is in a measured time but the answers.
 */
async function watchJobs(api: AgentApi, names: readonly string[]): Promise<JobWatch> {
  const stop = new AbortController();
  const opened = Promise.withResolvers<void>();
  const pending = new Set(names);
  const ended = new Map<string, JobView>();
  const changed = new Set<string>();
  let news = Promise.withResolvers<void>();
  const { sequence } = await api.listJobs();
  const following = follow().catch((error) => {
    if (stop.signal.aborted) return;
    opened.reject(error);
    news.reject(error);
  });

  async function follow(): Promise<void> {
    // One change that has been already is asked for as well: it shows that the stream is open.
    for await (const change of api.changes(Math.max(0, sequence - 1), stop.signal)) {
      opened.resolve();
      if (change.kind !== "job" || !pending.has(change.name)) continue;
      changed.add(change.name);
      news.resolve();
    }
  }

  async function untilAllEnded(): Promise<readonly JobView[]> {
    while (pending.size > 0) {
      await news.promise;
      if (pending.size >= gatheredMin) await new Promise((resolve) => setTimeout(resolve, gatherMs));
      news = Promise.withResolvers();
      const batch = [...changed];
      changed.clear();
      for (const job of await Promise.all(batch.map((name) => api.getJob(name)))) {
        if (job.finishedAt === null) continue;
        if (job.state !== "Succeeded")
          throw new Error(`job ${job.name} ended ${job.state}: ${job.error?.detail ?? "without an error"}`);
        // Named again while it was being asked for, it is answered twice.
        ended.set(job.name, job);
        pending.delete(job.name);
      }
    }
    return [...ended.values()];
  }

  await opened.promise;
  return {
    finished: untilAllEnded(),
    async stop() {
      stop.abort();
      await following;
    },
  };
}
