// The source's process of a floor: sends exactly the changed bytes, and waits until the target says that they are durable.
import { closeSync, openSync } from "node:fs";
import type { Worker } from "node:worker_threads";
import { digestOfSegment } from "./digests.ts";
import { type FloorTask, type Piece, segmentsOf, shareOf } from "./messages.ts";
import { closeFd, connectTo, receiveDone, sendFile, setCork } from "./native.ts";
import { type Outcome, serve } from "./serve.ts";
import { ask, threadsOf } from "./threads.ts";
import type { SenderResult, SenderTask } from "./tls-sender.ts";

const senders = threadsOf("./tls-sender.ts");

serve(async (task, ports) => {
  const segments = segmentsOf(task.files);
  const isTls = task.transport === "tls";
  const threads = await senders(isTls ? task.lanes : 0);
  const send = (fds: number[]) => {
    const sending = { task, fds, ports, segments };
    return isTls ? overTls(sending, threads) : byKernel(sending);
  };
  return { ports, go: () => withFiles(task, send) };
});

async function withFiles(task: FloorTask, work: (fds: number[]) => Promise<Outcome>): Promise<Outcome> {
  const fds = task.files.map(({ path }) => openSync(path, "r"));
  try {
    return await work(fds);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

interface Sending {
  readonly task: FloorTask;
  readonly fds: readonly number[];
  /** Where the target listens, by lane. */
  readonly ports: readonly number[];
  readonly segments: readonly (readonly Piece[])[];
}

/** sendfile alone: the bytes never enter the process, unless they are hashed, for which they are read once more. */
async function byKernel({ task, fds, ports, segments }: Sending): Promise<Outcome> {
  const socket = connectTo(ports[0] ?? 0);
  let bytesSent = 0;
  const digests: string[] = [];
  setCork(socket, true);
  for (const segment of segments) {
    for (const { file, offset, length } of segment) {
      for (let done = 0; done < length; ) done += sendFile(socket, fds[file] ?? -1, offset + done, length - done);
      bytesSent += length;
    }
    if (task.isHashing) digests.push(digestOfSegment(fds, segment));
  }
  setCork(socket, false);
  receiveDone(socket);
  closeFd(socket);
  return { bytesSent, digests };
}

/** Each lane in a thread of its own, which is there before the clock starts. */
async function overTls({ task, fds, ports, segments }: Sending, threads: readonly Worker[]): Promise<Outcome> {
  const { lanes, tls, isHashing } = task;
  if (tls === undefined) throw new Error("there are no certificates");
  const outcomes = await Promise.all(
    threads.map((thread, lane) => {
      const share = shareOf(segments, lane, lanes);
      return ask<SenderTask, SenderResult>(thread, { fds, port: ports[lane] ?? 0, share, tls, isHashing });
    }),
  );
  const digests: string[] = [];
  for (const [lane, outcome] of outcomes.entries()) {
    for (const [index, digest] of outcome.digests.entries()) digests[lane + index * lanes] = digest;
  }
  return { bytesSent: outcomes.reduce((sum, { bytesSent }) => sum + bytesSent, 0), digests };
}
