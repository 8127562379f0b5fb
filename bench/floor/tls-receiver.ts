// One lane of the target's side of a TLS floor, in a thread of its own: listens, writes what comes to the places of its share
// of the segments, and acknowledges when it is told to.
import { writevSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import { parentPort } from "node:worker_threads";
import type { Piece, TlsSecrets } from "./messages.ts";

export type ReceiverRequest =
  | { readonly kind: "listen"; readonly tls: TlsSecrets; readonly share: readonly (readonly Piece[])[] }
  | { readonly kind: "receive"; readonly fds: readonly number[] }
  | { readonly kind: "acknowledge" };

export type ReceiverReply =
  | { readonly kind: "ready" }
  | { readonly kind: "listening"; readonly port: number }
  /** The segment of this number, within the share, has been written. */
  | { readonly kind: "segment"; readonly at: number }
  | { readonly kind: "received" }
  | { readonly kind: "failed"; readonly message: string };

const flushBytes = 1 << 20;
/** What is being received now: whose connection comes, and what it brings. */
interface Incoming {
  readonly share: readonly (readonly Piece[])[];
  readonly socket: Promise<TLSSocket>;
}
let incoming: Incoming | undefined;

function answer(reply: ReceiverReply): void {
  parentPort?.postMessage(reply);
}

parentPort?.on("message", (request: ReceiverRequest) => {
  serve(request).catch((error: Error) => answer({ kind: "failed", message: String(error.stack) }));
});
answer({ kind: "ready" });

async function serve(request: ReceiverRequest): Promise<void> {
  if (request.kind === "listen") return listen(request);
  if (incoming === undefined) throw new Error("nobody listens");
  const socket = await incoming.socket;
  if (request.kind === "receive") await receive(socket, request.fds, incoming.share);
  else socket.end(Buffer.from([1]));
}

function listen({ tls, share }: Extract<ReceiverRequest, { kind: "listen" }>): void {
  const { promise, resolve } = Promise.withResolvers<TLSSocket>();
  incoming = { share, socket: promise };
  const server = createServer({ ...tls, requestCert: true, minVersion: "TLSv1.3" }, (socket) => {
    socket.pause();
    server.close();
    resolve(socket);
  });
  server.listen(0, "127.0.0.1", () => answer({ kind: "listening", port: (server.address() as AddressInfo).port }));
}

async function receive(socket: TLSSocket, fds: readonly number[], share: Incoming["share"]): Promise<void> {
  const writer = new LaneWriter(fds, share, (at) => answer({ kind: "segment", at }));
  if (!writer.isDone()) await drained(socket, writer);
  answer({ kind: "received" });
}

function drained(socket: TLSSocket, writer: LaneWriter): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.on("end", () => (writer.isDone() ? resolve() : reject(new Error("the source ended too early"))));
    socket.on("data", (data: Buffer) => {
      try {
        writer.take(data);
        if (writer.isDone()) resolve();
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
  readonly #segments: readonly (readonly Piece[])[];
  readonly #onSegment: (index: number) => void;
  #segment = 0;
  #piece = 0;
  /** Of the present piece: what is written, and what is gathered after it. */
  #written = 0;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;

  constructor(fds: readonly number[], segments: readonly (readonly Piece[])[], onSegment: (index: number) => void) {
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
