// The threads that lanes run on, so that a lane costs the main thread next to nothing, and several use several cores. They are
// reused, for starting one takes a tenth of a second and more; those that idle end after a while.
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { ThreadJob } from "./lane-thread.ts";

export interface LaneThreadsOptions {
  readonly clock: Clock;
  readonly limits?: Partial<LaneThreadsLimits>;
  /** A thread ended by a defect, and with it its lanes, which break; for the log. */
  onCrash?(error: Error): void;
}

export interface LaneThreadsLimits {
  /** Lanes that need a thread to themselves wait when there are so many. */
  readonly threadsMax: number;
  /** Other lanes share threads from so many on: more than there are cores make nothing faster, and each takes 10 MiB and more. */
  readonly sharedFrom: number;
  /** An idle thread ends after this time. */
  readonly idleMs: number;
}

const defaultLimits: LaneThreadsLimits = { threadsMax: 32, sharedFrom: availableParallelism(), idleMs: 60_000 };

/** What runs on a thread, until it is released. */
export interface ThreadLease {
  /** Messages to and from what runs there; closes when the thread ends. */
  readonly port: MessagePort;
  /** To be called when what runs there has said its last word. A repeat does nothing. */
  release(): void;
}

export interface LeaseOptions {
  /** Whether it blocks its thread; then it gets one of its own. */
  readonly isBlocking: boolean;
  /** Gives up waiting for a thread. */
  readonly signal: AbortSignal;
  /** Has to end what runs there: all threads are about to be ended. */
  onRevoke(reason: Error): void;
}

interface Task extends LeaseOptions {
  readonly job: ThreadJob;
}

interface Thread {
  readonly worker: Worker;
  /** What runs there, with the near end of its port. */
  readonly tasks: Map<Task, MessagePort>;
  /** Ends the wait for the idle time to pass. */
  idle: AbortController | undefined;
}

interface Waiter {
  readonly task: Task;
  take(lease: ThreadLease): void;
}

/**
 * A source's dialers and a target's server each have their own: were all threads of two agents held by lanes that wait for one
 * at the other side, none would ever come free.
 */
export class LaneThreads {
  readonly #options: LaneThreadsOptions;
  readonly #limits: LaneThreadsLimits;
  readonly #threads = new Set<Thread>();
  #waiting: Waiter[] = [];
  #isClosed = false;

  constructor(options: LaneThreadsOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
  }

  /** Threads there are, idle ones included. */
  get size(): number {
    return this.#threads.size;
  }

  /** Starts the job on a thread. Rejects with the signal's reason, and with `Unreachable` when all threads were ended. */
  async run(job: ThreadJob, options: LeaseOptions): Promise<ThreadLease> {
    if (this.#isClosed) throw new LongshoreError("Unreachable", "the lanes' threads are ended");
    options.signal.throwIfAborted();
    const task = { ...options, job };
    const thread = this.#choose(options.isBlocking);
    return thread === undefined ? this.#wait(task) : this.#start(task, thread);
  }

  /** Ends all threads; resolves when nothing runs any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const reason = new Error("the lanes' threads are ended");
    for (const { task } of this.#waiting) task.onRevoke(reason);
    const ended = [...this.#threads].map(async (thread) => {
      thread.idle?.abort();
      for (const task of thread.tasks.keys()) task.onRevoke(reason);
      await thread.worker.terminate();
    });
    await Promise.all(ended);
  }

  #choose(isBlocking: boolean): Thread | undefined {
    const threads = [...this.#threads];
    const idle = threads.find(({ tasks }) => tasks.size === 0);
    if (idle !== undefined) return idle;
    const canStart = threads.length < this.#limits.threadsMax;
    if (isBlocking) return canStart ? this.#startThread() : undefined;
    const shared = threads.filter(({ tasks }) => ![...tasks.keys()].some((task) => task.isBlocking));
    if (canStart && shared.length < this.#limits.sharedFrom) return this.#startThread();
    return shared.sort((one, other) => one.tasks.size - other.tasks.size)[0];
  }

  #start(task: Task, thread: Thread): ThreadLease {
    thread.idle?.abort();
    thread.idle = undefined;
    const { port1: port, port2: far } = new MessageChannel();
    thread.tasks.set(task, port);
    thread.worker.ref();
    thread.worker.postMessage({ port: far, job: task.job }, [far]);
    const release = () => {
      port.close();
      if (thread.tasks.delete(task)) this.#free(thread);
    };
    return { port, release };
  }

  #wait(task: Task): Promise<ThreadLease> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#waiting = this.#waiting.filter((one) => one !== waiter);
        reject(task.signal.reason);
      };
      const waiter = {
        task,
        take: (lease: ThreadLease) => {
          task.signal.removeEventListener("abort", abort);
          resolve(lease);
        },
      };
      task.signal.addEventListener("abort", abort, { once: true });
      this.#waiting.push(waiter);
    });
  }

  #startThread(): Thread {
    const worker = new Worker(join(import.meta.dirname, "lane-thread.ts"), {
      name: "lane",
      // Descriptors come and go between threads here.
      trackUnmanagedFds: false,
      // What a lane leaves behind is short-lived: it is cleared away early, before it adds up.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    const thread: Thread = { worker, tasks: new Map(), idle: undefined };
    this.#threads.add(thread);
    worker.on("error", (error: Error) => this.#options.onCrash?.(error));
    worker.on("exit", () => this.#onExit(thread));
    return thread;
  }

  #onExit(thread: Thread): void {
    this.#threads.delete(thread);
    thread.idle?.abort();
    // What was posted just before it ended went nowhere; those who wait for an answer learn of it by their ports.
    for (const port of thread.tasks.values()) port.close();
    if (!this.#isClosed && this.#waiting.length > 0) this.#free(this.#startThread());
  }

  #free(thread: Thread): void {
    if (this.#isClosed || thread.tasks.size > 0 || !this.#threads.has(thread)) return;
    const next = this.#waiting.shift();
    if (next === undefined) this.#endLater(thread);
    else next.take(this.#start(next.task, thread));
  }

  #endLater(thread: Thread): void {
    thread.worker.unref();
    const idle = new AbortController();
    thread.idle = idle;
    const end = () => {
      this.#threads.delete(thread);
      return thread.worker.terminate();
    };
    this.#options.clock.sleep(this.#limits.idleMs, idle.signal).then(end, () => {});
  }
}
