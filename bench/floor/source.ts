// The source's process of a floor: sends exactly the changed bytes, and waits until the target says that they are durable.
import { createHash, type Hash } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { connect, type TLSSocket } from "node:tls";
import { digestOfSegment, readWhole } from "./digests.ts";
import { digestAlgorithm, type FloorTask, type Piece, segmentsOf, shareOf } from "./messages.ts";
import { closeFd, connectTo, receiveDone, sendFile, setCork } from "./native.ts";
import { type Outcome, serve } from "./serve.ts";

const bufferBytes = 1 << 20;
const buffersPerLane = 4;

serve((task, port) => {
  if (port === undefined) throw new Error("the source has to know the target's port");
  const segments = segmentsOf(task.files);
  return {
    port,
    go: () =>
      withFiles(task, (fds) => (task.transport === "kernel" ? byKernel : overTls)({ task, fds, port, segments })),
  };
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
  readonly port: number;
  readonly segments: readonly (readonly Piece[])[];
}

/** sendfile alone: the bytes never enter the process, unless they are hashed, for which they are read once more. */
async function byKernel({ task, fds, port, segments }: Sending): Promise<Outcome> {
  const socket = connectTo(port);
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

async function overTls(sending: Sending): Promise<Outcome> {
  const { lanes } = sending.task;
  const outcomes = await Promise.all(Array.from({ length: lanes }, (_, lane) => sendLane(sending, lane)));
  const digests: string[] = [];
  for (const [lane, outcome] of outcomes.entries()) {
    for (const [index, digest] of outcome.digests.entries()) digests[lane + index * lanes] = digest;
  }
  return { bytesSent: outcomes.reduce((sum, { bytesSent }) => sum + bytesSent, 0), digests };
}

/** Reads into a few buffers in turn and writes them out; small ranges are gathered. */
async function sendLane({ task, fds, port, segments }: Sending, lane: number): Promise<Outcome> {
  const socket = await dial(task, port, lane);
  const acknowledged = new Promise<void>((resolve, reject) => {
    socket.once("data", () => resolve());
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the target ended without a word")));
  });
  const writer = new BufferedWriter(socket);
  const digests: string[] = [];
  for (const segment of shareOf(segments, lane, task.lanes)) {
    const hash = task.isHashing ? createHash(digestAlgorithm) : undefined;
    for (const piece of segment) await writer.send(fds[piece.file] ?? -1, piece, hash);
    if (hash !== undefined) digests.push(hash.digest("hex"));
  }
  await writer.flush();
  await acknowledged;
  const { bytesWritten } = socket as TLSSocket & { _parent?: never };
  socket.destroy();
  return { bytesSent: bytesWritten, digests };
}

function dial({ tls }: FloorTask, port: number, lane: number): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const options = { ...tls, host: "127.0.0.1", port, minVersion: "TLSv1.3", servername: "localhost" } as const;
    const socket = connect({ ...options, checkServerIdentity: () => undefined }, () => {
      socket.write(Buffer.from([lane]));
      resolve(socket);
    });
    socket.once("error", reject);
  });
}

class BufferedWriter {
  readonly #socket: TLSSocket;
  readonly #free: Buffer[] = Array.from({ length: buffersPerLane }, () => Buffer.allocUnsafeSlow(bufferBytes));
  #wake = Promise.withResolvers<void>();
  #filling: Buffer | undefined;
  #filled = 0;

  constructor(socket: TLSSocket) {
    this.#socket = socket;
  }

  async send(fd: number, { offset, length }: Piece, hash: Hash | undefined): Promise<void> {
    for (let done = 0; done < length; ) {
      this.#filling ??= await this.#next();
      const bytes = Math.min(bufferBytes - this.#filled, length - done);
      const part = this.#filling.subarray(this.#filled, this.#filled + bytes);
      readWhole(fd, part, { offset: offset + done, length: bytes });
      hash?.update(part);
      done += bytes;
      this.#filled += bytes;
      if (this.#filled === bufferBytes) this.#write();
    }
  }

  /** Resolves when everything has left. */
  async flush(): Promise<void> {
    if (this.#filled > 0) this.#write();
    while (this.#free.length < buffersPerLane - (this.#filling === undefined ? 0 : 1)) await this.#wake.promise;
  }

  async #next(): Promise<Buffer> {
    for (;;) {
      const buffer = this.#free.pop();
      if (buffer !== undefined) return buffer;
      await this.#wake.promise;
    }
  }

  #write(): void {
    const buffer = this.#filling;
    if (buffer === undefined) return;
    const bytes = buffer.subarray(0, this.#filled);
    [this.#filling, this.#filled] = [undefined, 0];
    this.#socket.write(bytes, () => {
      this.#free.push(buffer);
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    });
  }
}
