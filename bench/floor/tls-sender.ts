// One lane of the source's side of a TLS floor, in a thread of its own: reads its share of the segments into a few buffers in
// turn and writes them out; small ranges are gathered. Ends when the target says that everything is durable.
import { createHash, type Hash } from "node:crypto";
import { connect, type TLSSocket } from "node:tls";
import { parentPort } from "node:worker_threads";
import { readWhole } from "./digests.ts";
import { digestAlgorithm, type Piece, type TlsSecrets } from "./messages.ts";
import type { Outcome } from "./serve.ts";
import { threadReady } from "./threads.ts";

export interface SenderTask {
  readonly fds: readonly number[];
  readonly port: number;
  readonly share: readonly (readonly Piece[])[];
  readonly tls: TlsSecrets;
  readonly isHashing: boolean;
}

export type SenderResult = Outcome;

const bufferBytes = 1 << 20;
const buffersPerLane = 4;

parentPort?.on("message", async (task: SenderTask) => {
  parentPort?.postMessage((await send(task)) satisfies SenderResult);
});

parentPort?.postMessage(threadReady);

async function send({ fds, port, share, tls, isHashing }: SenderTask): Promise<Outcome> {
  const socket = await dial(tls, port);
  const acknowledged = new Promise<void>((resolve, reject) => {
    socket.once("data", () => resolve());
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the target ended without a word")));
  });
  const writer = new BufferedWriter(socket);
  const digests: string[] = [];
  for (const segment of share) {
    const hash = isHashing ? createHash(digestAlgorithm) : undefined;
    for (const piece of segment) await writer.send(fds[piece.file] ?? -1, piece, hash);
    if (hash !== undefined) digests.push(hash.digest("hex"));
  }
  await writer.flush();
  await acknowledged;
  const bytesSent = socket.bytesWritten;
  socket.destroy();
  return { bytesSent, digests };
}

function dial(tls: TlsSecrets, port: number): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const options = { ...tls, host: "127.0.0.1", port, minVersion: "TLSv1.3", servername: "localhost" } as const;
    const socket = connect({ ...options, checkServerIdentity: () => undefined }, () => resolve(socket));
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
