// The agent's end of the process that keeps file systems frozen (freeze-guard.ts).
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { Clock } from "../base/clock.ts";
import type { Mount } from "../base/mount-table.ts";
import type { Thaw } from "./backend.ts";
import type { GuardReply, GuardRequest } from "./freeze-guard.ts";

/** The guard refused, died, or did not answer in time. */
export class GuardError extends Error {
  override readonly name = "GuardError";
  /** The guard itself says that nothing is frozen; after anything else that is not known. */
  readonly isUndone: boolean;
  /** The system's reason, if it was that. */
  readonly errno: string | undefined;
  constructor(message: string, { isUndone = false, errno }: { isUndone?: boolean; errno?: string | undefined } = {}) {
    super(message);
    this.isUndone = isUndone;
    this.errno = errno;
  }
}

/** What the guard holds frozen. */
export interface HeldByGuard {
  /** Throws when the guard does not answer, or is gone. */
  thaw(): Promise<Thaw>;
  /** Settles when it is thawed, or the guard is gone. */
  readonly thawed: Promise<Thaw>;
}

/** How long the guard may take to answer, and how much later than its timers ours end. */
export const graceMs = 2_000;

interface Waiting {
  readonly frozen: PromiseWithResolvers<void>;
  readonly thawed: PromiseWithResolvers<Thaw>;
}

const stderrBytesMax = 4096;
/** For a busy machine to start it; nothing is held up meanwhile. */
const startMsMax = 30_000;
const program = join(import.meta.dirname, "freeze-guard.ts");

export class GuardProcess {
  readonly pid: number | undefined;
  /** Resolves when the process is gone, with all of its calls. */
  readonly gone: Promise<void>;
  private readonly ready = Promise.withResolvers<void>();
  private readonly clock: Clock;
  private readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  private readonly waiting = new Map<number, Waiting>();
  private lastId = 0;
  private said = "";
  private isGone = false;

  constructor(clock: Clock) {
    this.clock = clock;
    this.child = spawn(process.execPath, [program], {
      stdio: ["pipe", "pipe", "pipe"],
      cwd: "/",
      // Nothing of the agent's environment, for that may have Node.js write to files; one thread for each file system.
      env: { UV_THREADPOOL_SIZE: "64" },
      // What a terminal sends to all of the agent's processes is not for it.
      detached: true,
    });
    this.pid = this.child.pid;
    this.gone = this.watch();
    // Whoever wants to freeze waits for it, if anybody does.
    this.ready.promise.catch(() => undefined);
  }

  /** Freezes the file systems, all or none. `thawed` settles as soon as they are not frozen any more, whoever thawed them. */
  async freeze(fileSystems: readonly (readonly Mount[])[], timeoutMs: number): Promise<HeldByGuard> {
    await this.inTime(this.ready.promise, startMsMax);
    const id = ++this.lastId;
    const waiting: Waiting = { frozen: Promise.withResolvers(), thawed: Promise.withResolvers() };
    // Nobody may be waiting for it when the process dies.
    waiting.thawed.promise.catch(() => undefined);
    this.waiting.set(id, waiting);
    if (this.isGone) this.fail(waiting);
    this.send({ kind: "freeze", id, fileSystems, timeoutMs });
    // Its own timer comes first, unless it is stopped.
    await this.inTime(waiting.frozen.promise, timeoutMs + graceMs);
    return {
      thawed: waiting.thawed.promise,
      thaw: () => {
        this.send({ kind: "thaw", id });
        return this.inTime(waiting.thawed.promise, graceMs);
      },
    };
  }

  /** Has it thaw everything and end. */
  end(): void {
    this.child.stdin.end();
  }

  /** Ends it at once, whatever it does; what it had frozen stays frozen. */
  kill(): void {
    this.child.kill("SIGKILL");
  }

  private send(request: GuardRequest): void {
    this.child.stdin.write(`${JSON.stringify(request)}\n`);
  }

  private async inTime<T>(answer: Promise<T>, timeoutMs: number): Promise<T> {
    const done = new AbortController();
    const late = this.clock.sleep(timeoutMs, done.signal).then(() => {
      throw new GuardError(`it took longer than ${timeoutMs} ms`);
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      late.catch(() => undefined);
      done.abort();
    }
  }

  private watch(): Promise<void> {
    const { child } = this;
    // Writing to one that is gone: those who wait hear of it below.
    child.stdin.on("error", () => undefined);
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.said = (this.said + text).slice(-stderrBytesMax);
    });
    createInterface({ input: child.stdout }).on("line", (line) => this.hear(JSON.parse(line) as GuardReply));
    return new Promise((resolve) => {
      const gone = (how: string) => {
        this.isGone = true;
        this.said = `${how}${this.said === "" ? "" : `: ${this.said.trim()}`}`;
        this.ready.reject(this.death());
        for (const waiting of this.waiting.values()) this.fail(waiting);
        resolve();
      };
      child.once("error", (error) => gone(error.message));
      child.once("close", (code, signal) => gone(`it ended by ${signal ?? `exit status ${code}`}`));
    });
  }

  private fail(waiting: Waiting): void {
    waiting.frozen.reject(this.death());
    waiting.thawed.reject(this.death());
  }

  private death(): GuardError {
    return new GuardError(`the process that freezes is gone: ${this.said}`);
  }

  private hear(reply: GuardReply): void {
    if (reply.kind === "ready") {
      this.ready.resolve();
      return;
    }
    const waiting = this.waiting.get(reply.id);
    if (waiting === undefined) return;
    if (reply.kind === "frozen") {
      waiting.frozen.resolve();
      return;
    }
    this.waiting.delete(reply.id);
    if (reply.kind === "thawed") {
      waiting.frozen.reject(new GuardError("the time was over before everything was frozen", { isUndone: true }));
      waiting.thawed.resolve({ wasFrozen: reply.wasFrozen, frozenMs: reply.frozenMs });
    } else {
      waiting.frozen.reject(new GuardError(reply.message, { isUndone: true, errno: reply.errno }));
      waiting.thawed.resolve({ wasFrozen: false, frozenMs: 0 });
    }
  }
}
