// A process of its own that keeps file systems frozen, so that no fate of the agent can leave one so: it thaws when it is
// told, when the time given is over, and when its standard input ends, which it does when the agent dies. It reads and
// writes one JSON object a line, and never writes to a file.
import type { FileHandle } from "node:fs/promises";
import { createInterface } from "node:readline";
import { type Clock, systemClock } from "../base/clock.ts";
import type { Mount } from "../base/mount-table.ts";
import { errnoOf } from "../base/system-error.ts";
import { freezeFileSystem, syncFileSystem, thawFileSystem } from "../native/file-calls.ts";
import { openMount } from "./mounts.ts";

export type GuardRequest =
  /** For each file system the mounts it can be reached by. All of them are frozen, or none. */
  | {
      readonly kind: "freeze";
      readonly id: number;
      readonly fileSystems: readonly (readonly Mount[])[];
      readonly timeoutMs: number;
    }
  | { readonly kind: "thaw"; readonly id: number };

export type GuardReply =
  /** Said first: it has started. */
  | { readonly kind: "ready" }
  | { readonly kind: "frozen"; readonly id: number }
  /** Nothing is frozen for this id. */
  | { readonly kind: "failed"; readonly id: number; readonly errno: string | undefined; readonly message: string }
  /** Told once, asked or not; `wasFrozen`: without a break until it was asked for. */
  | { readonly kind: "thawed"; readonly id: number; readonly wasFrozen: boolean; readonly frozenMs: number };

class Freeze {
  private readonly clock: Clock;
  private readonly handles: FileHandle[] = [];
  private readonly ending = new AbortController();
  /** Settles when none of the calls that have begun is under way any more. */
  private calls: Promise<unknown> = Promise.resolve();
  private readonly frozen = new Set<FileHandle>();
  private frozenSinceMs: number | undefined;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Opens the file systems and writes out what is dirty, while writers still go on. */
  async prepare(fileSystems: readonly (readonly Mount[])[]): Promise<void> {
    const open = async (mounts: readonly Mount[]) => {
      const handle = await openAny(mounts);
      this.handles.push(handle);
      await syncFileSystem(handle.fd);
    };
    await this.all(fileSystems.map(open));
  }

  async freeze(): Promise<void> {
    this.ending.signal.throwIfAborted();
    this.frozenSinceMs = this.clock.monotonicMs();
    const freeze = async (handle: FileHandle) => {
      await freezeFileSystem(handle.fd);
      this.frozen.add(handle);
    };
    await this.all(this.handles.map(freeze));
    this.ending.signal.throwIfAborted();
  }

  /** Whether all of them were frozen until now. A call that is under way cannot be taken back, so it is waited for. */
  async thaw(): Promise<{ wasFrozen: boolean; frozenMs: number }> {
    this.ending.abort(new Error("the time was over before everything was frozen"));
    await this.calls;
    const wereFrozen = await Promise.all([...this.frozen].map((handle) => thawFileSystem(handle.fd)));
    const frozenMs = this.frozenSinceMs === undefined ? 0 : this.clock.monotonicMs() - this.frozenSinceMs;
    const wasFrozen = wereFrozen.length === this.handles.length && wereFrozen.every(Boolean);
    await Promise.all(this.handles.map((handle) => handle.close()));
    return { wasFrozen, frozenMs };
  }

  private async all(calls: readonly Promise<void>[]): Promise<void> {
    this.calls = Promise.allSettled(calls);
    await Promise.all(calls);
  }
}

async function openAny(mounts: readonly Mount[]): Promise<FileHandle> {
  for (const mount of mounts) {
    const handle = await openMount(mount);
    if (handle !== undefined) return handle;
  }
  throw new Error(`${mounts.map(({ path }) => path).join(", ")} cannot be reached`);
}

/** How long a freeze waits for others that are still being written out. */
const togetherMsMax = 2_000;

class Guard {
  private readonly clock = systemClock;
  private readonly freezes = new Map<number, Freeze>();
  private readonly preparing = new Set<Promise<void>>();
  private readonly reply: (reply: GuardReply) => void;

  constructor(reply: (reply: GuardReply) => void) {
    this.reply = reply;
  }

  async follow(request: GuardRequest): Promise<void> {
    if (request.kind === "thaw") await this.thaw(request.id, true);
    else await this.freeze(request);
  }

  async thawAll(): Promise<void> {
    await Promise.all([...this.freezes.keys()].map((id) => this.thaw(id, false)));
  }

  private async freeze({ id, fileSystems, timeoutMs }: GuardRequest & { kind: "freeze" }): Promise<void> {
    const freeze = new Freeze(this.clock);
    this.freezes.set(id, freeze);
    const timeIsOver = this.clock.sleep(timeoutMs).then(() => this.thaw(id, false));
    try {
      await this.together(freeze.prepare(fileSystems));
      await freeze.freeze();
      this.reply({ kind: "frozen", id });
    } catch (error) {
      if (this.freezes.delete(id)) await freeze.thaw();
      const message = error instanceof Error ? error.message : String(error);
      this.reply({ kind: "failed", id, errno: errnoOf(error), message });
    }
    await timeIsOver;
  }

  /** Those that were asked for together are frozen together: none is held up while another is still being written out. */
  private async together(preparation: Promise<void>): Promise<void> {
    this.preparing.add(preparation);
    try {
      await preparation;
    } finally {
      this.preparing.delete(preparation);
    }
    // A device that does not answer keeps only its own volume from being frozen.
    await Promise.race([Promise.allSettled(this.preparing), this.clock.sleep(togetherMsMax)]);
  }

  private async thaw(id: number, isAsked: boolean): Promise<void> {
    const freeze = this.freezes.get(id);
    if (freeze === undefined || !this.freezes.delete(id)) return;
    const { wasFrozen, frozenMs } = await freeze.thaw();
    this.reply({ kind: "thawed", id, wasFrozen: wasFrozen && isAsked, frozenMs });
  }
}

/** Follows what comes in until it ends; then everything is thawed. */
async function run(): Promise<void> {
  // Nobody reads any more when the agent is dead; that is no reason to end before everything is thawed.
  process.stdout.on("error", () => undefined);
  const guard = new Guard((reply) => process.stdout.write(`${JSON.stringify(reply)}\n`));
  const end = () =>
    guard.thawAll().then(
      () => process.exit(0),
      (error: unknown) => {
        process.stderr.write(`${String(error)}\n`);
        process.exit(1);
      },
    );
  // A signal meant for the whole group of processes must not leave anything frozen.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, end);
  process.stdout.write(`${JSON.stringify({ kind: "ready" } satisfies GuardReply)}\n`);
  for await (const line of createInterface({ input: process.stdin })) {
    guard.follow(JSON.parse(line) as GuardRequest).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      void end();
    });
  }
  await end();
}

if (import.meta.main) await run();
