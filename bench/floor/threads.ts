// Threads of a floor's process, and asking them for one thing at a time.
import { Worker } from "node:worker_threads";

/** What a thread says first, when it has loaded everything. */
export const threadReady = "ready";

/** Threads that run a file, made when they are first asked for and kept: a floor is warm in its runs, as a service is. */
export function threadsOf(file: string): (count: number) => Promise<Worker[]> {
  const threads: Worker[] = [];
  return async (count) => {
    while (threads.length < count) threads.push(await openThread(file));
    return threads.slice(0, count);
  };
}

function openThread(file: string): Promise<Worker> {
  const thread = new Worker(new URL(file, import.meta.url));
  return new Promise((resolve, reject) => {
    thread.once("error", reject);
    thread.once("message", () => {
      thread.off("error", reject);
      resolve(thread);
    });
  });
}

/** The thread's next message after it was told something; rejects when the thread fails. */
export function ask<Request, Reply>(thread: Worker, request: Request): Promise<Reply> {
  return new Promise((resolve, reject) => {
    thread.once("error", reject);
    thread.once("message", (reply: Reply) => {
      thread.off("error", reject);
      resolve(reply);
    });
    thread.postMessage(request);
  });
}
