// The target's process of a floor: clones the base, puts what arrives where it belongs, makes it durable, and says so. The
// hashing floors read back what is durable (from the page cache) and hash it, segment by segment, in a second thread.
import { closeSync, constants, copyFileSync, fsyncSync, ftruncateSync, openSync, writevSync } from "node:fs";
import { dirname } from "node:path";
import { createServer, type TLSSocket } from "node:tls";
import { Worker } from "node:worker_threads";
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
import type { VerifierResult } from "./verifier.ts";

const flushBytes = 1 << 20;

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
    port: listener.port,
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

function prepareTls(task: FloorTask, segments: Piece[][], verifier: Verifier | undefined): Promise<Prepared> {
  const lanes: TLSSocket[] = [];
  const connected = Promise.withResolvers<void>();
  const server = createServer({ ...task.tls, requestCert: true, minVersion: "TLSv1.3" }, (socket) => {
    socket.pause();
    lanes.push(socket);
    if (lanes.length === task.lanes) connected.resolve();
  });
  const go = async (): Promise<Outcome> => {
    const digests: string[] = [];
    await filling(task, async (fds) => {
      await connected.promise;
      const receiving = { fds, segments, lanes: task.lanes, verifier };
      await Promise.all(lanes.map((socket) => receiveLane(socket, receiving)));
      digests.push(...((await verifier?.results(segments.length)) ?? []));
    });
    for (const socket of lanes) socket.end(Buffer.from([1]));
    server.close();
    return { bytesSent: 0, digests };
  };
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve({ port: (server.address() as { port: number }).port, go }));
  });
}

interface Receiving {
  readonly fds: readonly number[];
  readonly segments: readonly Piece[][];
  readonly lanes: number;
  readonly verifier: Verifier | undefined;
}

/** Takes what a lane brings: its number, then its share of the segments. */
function receiveLane(socket: TLSSocket, { fds, segments, lanes, verifier }: Receiving): Promise<void> {
  return new Promise((resolve, reject) => {
    let writer: LaneWriter | undefined;
    const take = (data: Buffer) => {
      let rest = data;
      if (writer === undefined) {
        const lane = data[0] ?? 0;
        const onSegment = (at: number) => {
          const index = lane + at * lanes;
          verifier?.verify(fds, segments[index] ?? [], index);
        };
        writer = new LaneWriter(fds, shareOf(segments, lane, lanes), onSegment);
        rest = data.subarray(1);
      }
      writer.take(rest);
      if (writer.isDone()) resolve();
    };
    socket.on("error", reject);
    socket.on("end", () => (writer?.isDone() ? resolve() : reject(new Error("the source ended too early"))));
    socket.on("data", (data: Buffer) => {
      try {
        take(data);
      } catch (error) {
        reject(error as Error);
      }
    });
    socket.resume();
  });
}

/** Writes a stream to the places of its pieces, gathering what belongs together. */
class LaneWriter {
  readonly #fds: readonly number[];
  readonly #segments: readonly Piece[][];
  readonly #onSegment: (index: number) => void;
  #segment = 0;
  #piece = 0;
  /** Of the present piece: what is written, and what is gathered after it. */
  #written = 0;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;

  constructor(fds: readonly number[], segments: readonly Piece[][], onSegment: (index: number) => void) {
    this.#fds = fds;
    this.#segments = segments;
    this.#onSegment = onSegment;
  }

  isDone(): boolean {
    return this.#segment === this.#segments.length;
  }

  take(data: Buffer): void {
    for (let rest = data; rest.length > 0; ) {
      const piece = this.#segments[this.#segment]?.[this.#piece];
      if (piece === undefined) throw new Error("more came than was asked for");
      const part = rest.subarray(0, piece.length - this.#written - this.#gatheredBytes);
      rest = rest.subarray(part.length);
      this.#gathered.push(part);
      this.#gatheredBytes += part.length;
      const isWhole = this.#written + this.#gatheredBytes === piece.length;
      if (isWhole || this.#gatheredBytes >= flushBytes) this.#flush(piece);
      if (isWhole) this.#advance();
    }
  }

  #flush({ file, offset }: Piece): void {
    let buffers = this.#gathered;
    while (buffers.length > 0) {
      const written = writevSync(this.#fds[file] ?? -1, buffers, offset + this.#written);
      this.#written += written;
      buffers = without(buffers, written);
    }
    [this.#gathered, this.#gatheredBytes] = [[], 0];
  }

  #advance(): void {
    this.#written = 0;
    this.#piece += 1;
    if (this.#piece < (this.#segments[this.#segment]?.length ?? 0)) return;
    this.#onSegment(this.#segment);
    this.#segment += 1;
    this.#piece = 0;
  }
}

function without(buffers: Buffer[], bytes: number): Buffer[] {
  let left = bytes;
  return buffers.flatMap((buffer) => {
    const skipped = Math.min(left, buffer.length);
    left -= skipped;
    return skipped === buffer.length ? [] : [buffer.subarray(skipped)];
  });
}

// ---- verification --------------------------------------------------------------------------------------------------

interface Verifier {
  verify(fds: readonly number[], segment: readonly Piece[], index: number): void;
  /** The digests of so many segments, in order, when all are there; the thread ends then. */
  results(count: number): Promise<string[]>;
}

async function openVerifier(): Promise<Verifier> {
  const worker = new Worker(new URL("./verifier.ts", import.meta.url));
  const digests: string[] = [];
  let known = 0;
  let news = Promise.withResolvers<void>();
  worker.on("message", ({ index, digest }: VerifierResult) => {
    digests[index] = digest;
    known += 1;
    news.resolve();
    news = Promise.withResolvers();
  });
  worker.on("error", (error) => news.reject(error));
  await new Promise<void>((resolve) => worker.once("online", resolve));
  return {
    verify: (fds, segment, index) => worker.postMessage({ fds, segment, index }),
    async results(count) {
      while (known < count) await news.promise;
      void worker.terminate();
      return digests;
    },
  };
}
