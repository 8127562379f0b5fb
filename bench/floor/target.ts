// The target's process of a floor: clones the base, puts what arrives where it belongs, makes it durable, and says so. The
// hashing floors read back what is durable (from the page cache) and hash it, segment by segment, in a second thread.
import { closeSync, constants, copyFileSync, fsyncSync, ftruncateSync, openSync } from "node:fs";
import { dirname } from "node:path";
import type { Worker } from "node:worker_threads";
import { setCopiedExtentSizeHint, sharingFileSystem } from "../../src/native/file-calls.ts";
import { blockBytes } from "../cases.ts";
import { type FloorTask, type Piece, segmentsOf, shareOf } from "./messages.ts";
import {
  acceptOne,
  closeFd,
  type Listener,
  listenOnLoopback,
  openPipe,
  pipeBytes,
  sendDone,
  spliceIn,
  spliceOut,
} from "./native.ts";
import { type Outcome, type Prepared, serve } from "./serve.ts";
import { ask, threadsOf } from "./threads.ts";
import type { ReceiverReply, ReceiverRequest } from "./tls-receiver.ts";
import type { VerifierResult } from "./verifier.ts";

const receivers = threadsOf("./tls-receiver.ts");
const verifiers = threadsOf("./verifier.ts");

serve(async (task) => {
  const segments = segmentsOf(task.files);
  const verifier = task.isHashing ? await openVerifier() : undefined;
  return task.transport === "kernel" ? prepareKernel(task, segments, verifier) : prepareTls(task, segments, verifier);
});

/** Clones (or makes) the copies, has them filled, and makes content and names durable. */
async function filling(task: FloorTask, fill: (fds: number[]) => Promise<void>): Promise<void> {
  const fds = task.files.map(({ path, base, sizeBytes }) => {
    if (base !== undefined) copyFileSync(base, path, constants.COPYFILE_FICLONE_FORCE);
    const fd = openSync(path, base === undefined ? "wx+" : "r+");
    // As this project does: else XFS takes 128 KiB for each block that is written, and a quarter more time.
    if (sharingFileSystem(fd)?.type === "xfs") setCopiedExtentSizeHint(fd, blockBytes);
    ftruncateSync(fd, sizeBytes);
    return fd;
  });
  await fill(fds);
  for (const fd of fds) {
    fsyncSync(fd);
    closeSync(fd);
  }
  for (const folder of new Set(task.files.map(({ path }) => dirname(path)))) syncFolder(folder);
}

function syncFolder(path: string): void {
  const fd = openSync(path, "r");
  fsyncSync(fd);
  closeSync(fd);
}

// ---- splice --------------------------------------------------------------------------------------------------------

function prepareKernel(task: FloorTask, segments: Piece[][], verifier: Verifier | undefined): Prepared {
  const listener = listenOnLoopback();
  return {
    ports: [listener.port],
    go: async () => {
      const digests: string[] = [];
      let socket = -1;
      await filling(task, async (fds) => {
        socket = receiveAll(listener, segments, fds, (index) => verifier?.verify(fds, segments[index] ?? [], index));
        digests.push(...((await verifier?.results(segments.length)) ?? []));
      });
      sendDone(socket);
      closeFd(socket);
      closeFd(listener.fd);
      return { bytesSent: 0, digests };
    },
  };
}

/** Moves everything from the socket through a pipe to its place; the bytes never enter the process. */
function receiveAll(
  listener: Listener,
  segments: readonly Piece[][],
  fds: number[],
  onSegment: (index: number) => void,
) {
  const socket = acceptOne(listener);
  const pipe = openPipe();
  let inPipe = 0;
  for (const [index, segment] of segments.entries()) {
    let wanted = segment.reduce((sum, { length }) => sum + length, 0) - inPipe;
    for (const { file, offset, length } of segment) {
      for (let done = 0; done < length; ) {
        if (inPipe === 0) {
          inPipe = spliceIn(socket, pipe, Math.min(pipeBytes, wanted));
          if (inPipe === 0) throw new Error("the source ended too early");
          wanted -= inPipe;
        }
        const moved = spliceOut(pipe, fds[file] ?? -1, offset + done, Math.min(inPipe, length - done));
        inPipe -= moved;
        done += moved;
      }
    }
    onSegment(index);
  }
  closeFd(pipe.readFd);
  closeFd(pipe.writeFd);
  return socket;
}

// ---- TLS -----------------------------------------------------------------------------------------------------------

/** Each lane in a thread of its own, which listens before the clock starts. */
async function prepareTls(task: FloorTask, segments: Piece[][], verifier: Verifier | undefined): Promise<Prepared> {
  const { lanes, tls } = task;
  if (tls === undefined) throw new Error("there are no certificates");
  const threads = await receivers(lanes);
  const listening = threads.map((thread, lane) =>
    ask<ReceiverRequest, ReceiverReply>(thread, { kind: "listen", tls, share: shareOf(segments, lane, lanes) }),
  );
  const ports = (await Promise.all(listening)).map((reply) => (reply.kind === "listening" ? reply.port : 0));
  const go = async (): Promise<Outcome> => {
    const digests: string[] = [];
    await filling(task, async (fds) => {
      const onSegment = (index: number) => verifier?.verify(fds, segments[index] ?? [], index);
      await Promise.all(threads.map((thread, lane) => received(thread, fds, (at) => onSegment(lane + at * lanes))));
      digests.push(...((await verifier?.results(segments.length)) ?? []));
    });
    for (const thread of threads) thread.postMessage({ kind: "acknowledge" } satisfies ReceiverRequest);
    return { bytesSent: 0, digests };
  };
  return { ports, go };
}

/** Has a lane receive its share, and tells of each segment. */
function received(thread: Worker, fds: readonly number[], onSegment: (at: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const take = (reply: ReceiverReply) => {
      if (reply.kind === "segment") onSegment(reply.at);
      else if (reply.kind === "received") end(resolve);
      else if (reply.kind === "failed") end(() => reject(new Error(reply.message)));
    };
    const end = (settle: () => void) => {
      thread.off("message", take).off("error", reject);
      settle();
    };
    thread.on("message", take).on("error", reject);
    thread.postMessage({ kind: "receive", fds } satisfies ReceiverRequest);
  });
}

// ---- verification --------------------------------------------------------------------------------------------------

interface Verifier {
  verify(fds: readonly number[], segment: readonly Piece[], index: number): void;
  /** The digests of so many segments, in order, when all are there; nothing is asked after it. */
  results(count: number): Promise<string[]>;
}

async function openVerifier(): Promise<Verifier> {
  const [worker] = await verifiers(1);
  if (worker === undefined) throw new Error("there is no thread");
  const digests: string[] = [];
  let known = 0;
  let news = Promise.withResolvers<void>();
  const take = ({ index, digest }: VerifierResult) => {
    digests[index] = digest;
    known += 1;
    news.resolve();
    news = Promise.withResolvers();
  };
  const fail = (error: Error) => news.reject(error);
  worker.on("message", take).on("error", fail);
  return {
    verify: (fds, segment, index) => worker.postMessage({ fds, segment, index }),
    async results(count) {
      while (known < count) await news.promise;
      worker.off("message", take).off("error", fail);
      return digests;
    },
  };
}
