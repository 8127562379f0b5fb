// Work that would hold the event loop for long, done in threads: one request at a time in each, answered in any order.
import { once } from "node:events";
import { Worker } from "node:worker_threads";

/** What a thread's program answers to each request, in the order it got them. */
export type WorkerAnswer<Answer> =
  | { readonly kind: "done"; readonly answer: Answer }
  | {
      readonly kind: "failed";
      readonly error: { readonly message: string; readonly code?: string; readonly errno?: number };
    };

/** Sent instead of a request: the program gives back what it holds and closes its port. */
export const endOfWork = null;

export interface WorkerPool<Request, Answer> {
  /**
   * Runs one request in a thread, or waits for one. Rejects with an error of the message, `code` and `errno` that the program
   * answered, or with why its thread ended. For a small one that thread is waited for which there is: a further one would take
   * longer to start, and 12 MiB.
   */
  run(request: Request, options?: { readonly isSmall?: boolean }): Promise<Answer>;
  /** Ends the threads; requests that run are waited for. */
  close(): Promise<void>;
}

/** Threads are started when there is work for them, `sizeMax` at most; idle ones do not keep the process alive. */
export function openWorkerPool<Request, Answer>(program: URL, sizeMax: number): WorkerPool<Request, Answer> {
  return new Threads(program, sizeMax);
}

interface Task<Request, Answer> {
  readonly request: Request;
  readonly isSmall: boolean;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

class Threads<Request, Answer> implements WorkerPool<Request, Answer> {
  readonly #program: URL;
  readonly #sizeMax: number;
  readonly #waiting: Task<Request, Answer>[] = [];
  readonly #idle: Worker[] = [];
  readonly #busy = new Map<Worker, Task<Request, Answer>>();
  readonly #running = new Set<Promise<unknown>>();

  constructor(program: URL, sizeMax: number) {
    this.#program = program;
    this.#sizeMax = sizeMax;
  }

  run(request: Request, { isSmall = false }: { readonly isSmall?: boolean } = {}): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#waiting.push({ request, isSmall, resolve, reject });
    this.#running.add(promise);
    const forget = () => this.#running.delete(promise);
    promise.then(forget, forget);
    this.#next();
    return promise;
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#running);
    await Promise.all(this.#idle.splice(0).map(end));
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const idle = this.#idle.pop();
      const [task] = idle === undefined ? this.#takeForNewThread() : this.#waiting.splice(0, 1);
      if (task === undefined) return;
      const worker = idle ?? this.#start();
      this.#busy.set(worker, task);
      worker.ref();
      worker.postMessage(task.request);
    }
  }

  /** What a further thread is started for, if anything. */
  #takeForNewThread(): Task<Request, Answer>[] {
    if (this.#busy.size >= this.#sizeMax) return [];
    const at = this.#busy.size === 0 ? 0 : this.#waiting.findIndex(({ isSmall }) => !isSmall);
    return at < 0 ? [] : this.#waiting.splice(at, 1);
  }

  #start(): Worker {
    // The program must not take the flags of whoever started this process, such as those of a test runner. It works outside its
    // heap, which stays small.
    const worker = new Worker(this.#program, { execArgv: [], resourceLimits: { maxYoungGenerationSizeMb: 4 } });
    worker.on("message", (answer: WorkerAnswer<Answer>) => this.#answered(worker, answer));
    let failure: Error | undefined;
    worker.on("error", (error) => {
      failure = error instanceof Error ? error : new Error(String(error));
    });
    void once(worker, "exit").then(() => this.#ended(worker, failure));
    return worker;
  }

  #answered(worker: Worker, answer: WorkerAnswer<Answer>): void {
    const task = this.#busy.get(worker);
    this.#busy.delete(worker);
    this.#idle.push(worker);
    worker.unref();
    if (answer.kind === "done") task?.resolve(answer.answer);
    else task?.reject(Object.assign(new Error(answer.error.message), answer.error));
    this.#next();
  }

  #ended(worker: Worker, failure: Error | undefined): void {
    const task = this.#busy.get(worker);
    this.#busy.delete(worker);
    const at = this.#idle.indexOf(worker);
    if (at >= 0) this.#idle.splice(at, 1);
    task?.reject(new Error(`a thread of ${this.#program.pathname} ended`, { cause: failure }));
    this.#next();
  }
}

async function end(worker: Worker): Promise<void> {
  const ended = once(worker, "exit");
  worker.ref();
  worker.postMessage(endOfWork);
  await ended;
}
