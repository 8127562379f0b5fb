// One node: what outlives its agent's process (database, disk, wall clock), and the process that runs on it now. Every door of
// a process (journal, disk, network, clock) is dead from the moment it dies: calls never return, and change nothing.
import { BugError } from "../../src/base/assert.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { Log } from "../../src/base/log.ts";
import type { Metrics } from "../../src/base/metrics.ts";
import { codeOf, LongshoreError } from "../../src/domain/errors.ts";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import { defaultLimits, type EngineLimits, type EngineOptions } from "../../src/engine/engine-options.ts";
import type { Journal } from "../../src/engine/journal.ts";
import type { StorageBackend } from "../../src/storage/backend.ts";
import { flipped, type Image, MemoryDisk } from "./memory-disk.ts";
import { StoredJournal } from "./memory-journal.ts";
import { type DiskStep, memoryStorage, type StorageDoors } from "./memory-storage.ts";
import { SimLanes } from "./sim-lanes.ts";
import { type Owner, simClock } from "./timeline.ts";
import type { World } from "./world.ts";

/** What a dead process's synchronous calls throw; whoever catches it can do nothing with it. */
export class Dead extends Error {
  override readonly name = "Dead";
}

/** A new one for each that waits: one for all would keep whatever waits for it, for as long as the process lives. */
const never = () => new Promise<never>(() => undefined);

export const simLimits: EngineLimits = {
  ...defaultLimits,
  unitBytes: 2 * 4096,
  pageUnits: 2,
  windowBytes: 8 * 4096,
  leaseMs: 3_000,
  attemptsMax: 6,
  retryDelayMs: 50,
  retryDelayMsMax: 1_000,
  deadlineMs: 20_000,
  reserveBytes: 4096,
  stagingAgeMs: 15_000,
  cloneWaitMs: 12_000,
  probeIntervalMs: 30_000,
  memberIntervalMs: 2_000,
  freezeMs: 2_000,
  jobHistoryMs: 3_600_000,
};

export interface Backup {
  readonly transactions: number;
  readonly files: ReadonlyMap<string, Image>;
}

export class Host implements Owner {
  readonly world: World;
  readonly cluster: { readonly uid: string; readonly name: string };
  readonly name: string;
  readonly journal = new StoredJournal();
  readonly disk: MemoryDisk;
  readonly wall = { skewMs: 0 };
  readonly backups: Backup[] = [];
  /** It was put back to an older image of its disk at some time. */
  wasRestored = false;
  suspendedUntilMs = 0;
  readonly isDead = false;
  process: Process | undefined;
  /** Undefined until it has started once. */
  agentId: string | undefined;

  constructor(world: World, cluster: { uid: string; name: string }, name: string) {
    this.world = world;
    this.cluster = cluster;
    this.name = name;
    this.disk = new MemoryDisk(`fs-${name}`);
  }

  get address(): string {
    return `${this.name}:1`;
  }

  get isUp(): boolean {
    return this.process?.engine !== undefined;
  }

  start(): void {
    if (this.process !== undefined) return;
    this.world.note(this, "start");
    const process = new Process(this);
    this.process = process;
    process.open();
  }

  /** The process dies; with it, perhaps, the power of the node. */
  crash(why: string): void {
    const { process, world } = this;
    if (process === undefined) return;
    const isPowerLoss = world.chance.is(0.5);
    world.note(this, `crash (${isPowerLoss ? "power" : "killed"}) ${why}`);
    this.process = undefined;
    this.suspendedUntilMs = 0;
    process.die();
    if (isPowerLoss) this.disk.losePower(world.chance);
    world.restartLater(this);
  }

  backUp(): void {
    this.backups.push({ transactions: this.journal.length, files: this.disk.copyFiles() });
  }

  /** Puts back an old image while no process runs: of the database, of the files, or of both, and not of one moment. */
  restore(): void {
    const { chance } = this.world;
    if (this.process !== undefined || this.backups.length === 0) return;
    const what = chance.pick(["database", "files", "both", "both"]);
    const [database, files] = [chance.pick(this.backups), chance.pick(this.backups)];
    const isSameFiles = chance.is(0.7);
    this.world.note(this, `restore ${what} (database at ${database.transactions}, same files ${isSameFiles})`);
    this.wasRestored = true;
    if (what !== "files") {
      this.journal.rollBack(database.transactions);
      for (const backup of [...this.backups]) {
        if (backup.transactions > database.transactions) this.backups.splice(this.backups.indexOf(backup), 1);
      }
    }
    if (what !== "database") this.disk.rollBack(files.files, isSameFiles);
    this.world.invariants.restored(this);
  }
}

export class Process implements Owner {
  readonly host: Host;
  readonly lanes: SimLanes;
  readonly clock: Clock;
  isDead = false;
  engine: Engine | undefined;
  private readonly world: World;
  private readonly dice;
  /** Steps on the disk that have begun and are not done. */
  private readonly cuttable = new Set<DiskStep>();

  constructor(host: Host) {
    this.host = host;
    this.world = host.world;
    this.clock = simClock(this.world.timeline, this, host.wall);
    this.dice = this.world.chance.engineDice();
    this.lanes = new SimLanes(this.world, this);
  }

  get suspendedUntilMs(): number {
    return this.host.suspendedUntilMs;
  }

  open(): void {
    const opening = openEngine(this.options()).then((engine) => {
      if (this.isDead) return;
      this.engine = engine;
      this.world.opened(this);
    });
    opening.catch((error: unknown) => this.failedToOpen(error));
  }

  die(): void {
    this.isDead = true;
    this.engine = undefined;
    this.host.disk.freezes.clear();
    for (const { cutShort } of this.cuttable) {
      if (cutShort.length > 0 && this.world.chance.is(0.7)) applyUnseen(this.world.chance.pick(cutShort));
    }
    this.cuttable.clear();
    this.lanes.died();
  }

  /** Throws, or never returns, in a dead process; crashes it when the seed says so. True: crash afterwards. */
  effect(name: string): boolean {
    if (this.isDead) throw new Dead();
    const fate = this.world.fate(this.host, name);
    if (fate === "before") {
      this.host.crash(`before ${name}`);
      throw new Dead();
    }
    return fate === "after";
  }

  private failedToOpen(error: unknown): void {
    if (this.isDead || error instanceof Dead) return;
    // Such as a full disk while it starts: the service manager starts it again.
    this.world.note(this.host, `did not start: ${error}`);
    if (error instanceof BugError) this.world.violated("I0", `${this.host.name} cannot start: ${error.stack}`);
    this.host.crash("did not start");
  }

  private options(): EngineOptions {
    const { host, world } = this;
    return {
      dataDir: host.name,
      cluster: host.cluster,
      node: host.name,
      version: "sim",
      addresses: { address: host.address, laneAddress: `${host.name}:2` },
      seeds: world.seedsOf(host),
      resolveSeed: async (seed) => [seed],
      connectMember: (address, agentId) => world.network.connectMember(this, address, agentId),
      openJournal: () => this.journal(),
      storage: this.storage(),
      lanes: { tls: this.lanes },
      connect: (location) => world.network.connect(this, location),
      clock: this.clock,
      dice: this.dice,
      log: this.log(),
      metrics: noMetrics,
      limits: world.limits,
    };
  }

  private journal(): Journal {
    const { host, world } = this;
    const alive = () => {
      if (this.isDead) throw new Dead();
    };
    let run: Journal["run"] | undefined;
    return {
      transaction: (work) => {
        const isCrash = this.effect("transaction");
        if (host.disk.isFull && world.chance.is(0.3))
          throw new LongshoreError("DiskFull", "the journal cannot be written");
        let done: ReturnType<typeof work>;
        try {
          const { result, tables } = host.journal.commit((running) => {
            run = running;
            return work();
          });
          world.invariants.committed(this, tables);
          done = result;
        } finally {
          run = undefined;
        }
        if (isCrash) {
          host.crash("after transaction");
          throw new Dead();
        }
        return done;
      },
      all: (sql, ...values) => {
        alive();
        return host.journal.read.all(sql, ...values);
      },
      get: (sql, ...values) => {
        alive();
        return host.journal.read.get(sql, ...values);
      },
      run: (sql, ...values) => {
        alive();
        if (run === undefined) throw new BugError("every change is part of a transaction");
        return run(sql, ...values);
      },
      keepBallast: () => undefined,
      close: () => undefined,
    };
  }

  private storage(): StorageBackend {
    const { world } = this;
    const doors: StorageDoors = {
      step: (step, apply) => this.diskStep(step, apply),
      cloning: (from, to) => world.invariants.cloning(this, from, to),
      landed: (content) => (world.chance.is(world.faults.diskFlips) ? flipped(content, world.chance) : content),
      difference: () => {
        if (!world.chance.is(0.1)) return "exact";
        return world.chance.pick(["unsound", "unshared"] as const);
      },
      nowMs: () => world.timeline.nowMs,
    };
    return memoryStorage(this.host.disk, doors);
  }

  private async diskStep<T>(step: DiskStep, apply: () => T): Promise<T> {
    const { world } = this;
    if (this.isDead) return never();
    const isChange = step.cutShort.length > 0;
    let isCrash = false;
    if (isChange) {
      try {
        isCrash = this.effect(step.name);
      } catch (error) {
        if (error instanceof Dead) return never();
        throw error;
      }
    }
    const delayMs = world.faults.diskDelayMs(step.name);
    if (delayMs > 0) {
      this.cuttable.add(step);
      await world.timeline.pause(delayMs, this);
      this.cuttable.delete(step);
    }
    if (this.isDead) return never();
    world.invariants.onDisk(this, step);
    const result = apply();
    if (isCrash) {
      this.host.crash(`after ${step.name}`);
      return never();
    }
    return result;
  }

  private log(): Log {
    const { world, host } = this;
    const write = (level: string) => (fields: Record<string, unknown>, message: string) => {
      if (this.isDead) return;
      const { err, ...rest } = fields;
      if (err instanceof BugError || isProgrammingError(err))
        world.violated("I0", `${host.name}: ${message}: ${(err as Error).stack}`);
      if (world.isTelling)
        world.note(host, `${level} ${message} ${JSON.stringify(rest)}${err === undefined ? "" : ` ${err}`}`);
    };
    const log = {
      trace: write("trace"),
      debug: write("debug"),
      info: write("info"),
      warn: write("warn"),
      error: write("error"),
    };
    return { ...log, fatal: log.error, child: () => log } as unknown as Log;
  }
}

export function isProgrammingError(error: unknown): boolean {
  return error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError;
}

const nothing = { add: () => undefined, set: () => undefined, drop: () => undefined, observe: () => undefined };
const noMetrics: Metrics = {
  counter: () => nothing,
  gauge: () => nothing,
  histogram: () => nothing,
  render: async () => "",
  contentType: "text/plain",
};

/** A step whose process is gone: that the disk is full stops it, and there is nobody to be told. */
function applyUnseen(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (codeOf(error) !== "DiskFull") throw error;
  }
}
