// The source's side of a kernel lane on its thread: large extents go from the file to the socket without passing through this
// process; small ones are gathered first, for each call costs more than it moves.
import { createHash, type Hash } from "node:crypto";
import type { MessagePort } from "node:worker_threads";
import { errnoOf } from "../base/system-error.ts";
import { alignedBuffer } from "../native/file-calls.ts";
import { BlockingPort, sliceMs } from "./blocking-port.ts";
import { BlockingSocket, directBytesMin, isUnsupported } from "./blocking-socket.ts";
import { parseStatus, renderEnd, unitHeaderBytes, writeUnitHeader } from "./lane-codec.ts";
import type { FromSource, ToSource } from "./lane-messages.ts";
import { LaneSignals } from "./lane-signals.ts";
import { SourceCredit } from "./source-credit.ts";
import { endedBy, endOfFile, readWhole, SourceError } from "./source-file.ts";

export interface KernelSourceJob {
  readonly role: "kernelSource";
  readonly fd: number;
  readonly hasDigests: boolean;
  readonly isPaced: boolean;
  readonly idleMs: number;
  readonly signals: SharedArrayBuffer;
}

/** So much of a file is sent at once: what is hashed before it stays in the processor's cache. */
const pieceBytes = 256 * 1024;

/** Runs one lane, and blocks its thread all the while; the last message on the port is `ended`. */
export function runKernelSource(port: MessagePort, job: KernelSourceJob): void {
  const signals = new LaneSignals(job.signals);
  const messages = new BlockingPort<ToSource, FromSource>(port, signals);
  try {
    const connected = messages.wait();
    if (connected.kind !== "connected") throw new Error("it was given up");
    new KernelSource(messages, new BlockingSocket(connected.socketFd, job.idleMs, signals), { ...job, signals }).run();
    messages.post(endedBy(undefined));
  } catch (error) {
    messages.post(endedBy(error));
  }
}

interface Range {
  readonly offset: number;
  readonly length: number;
}

type Send = Extract<ToSource, { kind: "send" }>;
type Options = Omit<KernelSourceJob, "signals"> & { readonly signals: LaneSignals };

class KernelSource {
  readonly #port: BlockingPort<ToSource, FromSource>;
  readonly #socket: BlockingSocket;
  readonly #options: Options;
  readonly #credit: SourceCredit;
  readonly #queue: Send[] = [];
  /** Payload begins at a page's beginning, for what is read elsewhere may cost thrice the time; a unit's header has room before it. */
  readonly #gather = alignedBuffer(unitHeaderBytes + pieceBytes, unitHeaderBytes);
  /** What is gathered lies in [from, filled). */
  #from = unitHeaderBytes;
  #filled = unitHeaderBytes;
  #hash: Hash | undefined;
  /** From here on the gathered payload is not hashed yet. */
  #hashFrom = unitHeaderBytes;
  #read: Uint8Array | undefined;
  #isClosing = false;
  /** Until the file turns out to be one that the kernel cannot send by itself. */
  #isDirect: boolean;

  constructor(port: BlockingPort<ToSource, FromSource>, socket: BlockingSocket, options: Options) {
    this.#port = port;
    this.#socket = socket;
    this.#options = options;
    this.#credit = new SourceCredit(options.isPaced, (bytes) => port.post({ kind: "credit", bytes }));
    this.#isDirect = options.fd >= 0;
  }

  /** Returns when the target has said that all was taken. */
  run(): void {
    for (let unit = this.#nextUnit(); unit !== undefined; unit = this.#nextUnit()) this.#put(unit);
    this.#end();
  }

  #take(message: ToSource): void {
    if (message.kind === "send") {
      this.#queue.push(message);
      this.#credit.want(unitHeaderBytes + message.payloadBytes);
    } else if (message.kind === "credit") this.#credit.grant(message.bytes);
    else if (message.kind === "bytes") this.#read = message.data;
    else if (message.kind === "close") this.#isClosing = true;
  }

  /** Waits for messages to make the condition true. */
  #until(condition: () => boolean): void {
    while (!condition()) {
      const message = this.#port.next(sliceMs);
      if (message !== undefined) this.#take(message);
      else if (!this.#socket.isQuiet) throw new Error("the target closed it, or spoke before the end");
    }
  }

  /** `undefined` when all is sent and no more will come. */
  #nextUnit(): Send | undefined {
    for (let message = this.#port.poll(); message !== undefined; message = this.#port.poll()) this.#take(message);
    this.#until(() => this.#queue.length > 0 || this.#isClosing);
    return this.#queue.shift();
  }

  #put({ unit, payloadBytes, extents }: Send): void {
    this.#awaitCredit(unitHeaderBytes);
    writeUnitHeader({ unit, payloadBytes }, this.#gather, 0);
    this.#from = 0;
    this.#credit.spend(unitHeaderBytes);
    this.#hash = this.#options.hasDigests ? createHash("sha256") : undefined;
    for (let at = 0; at < extents.length; at += 2) {
      const offset = extents[at] ?? 0;
      const length = extents[at + 1] ?? 0;
      if (length >= directBytesMin && this.#isDirect) this.#sendDirectly(offset, length);
      else this.#gatherExtent(offset, length);
    }
    this.#flush({ more: false });
    this.#port.post({ kind: "sent", digest: this.#hash?.digest("hex") });
    this.#hash = undefined;
  }

  #gatherExtent(offset: number, bytes: number): void {
    for (let done = 0; done < bytes; ) {
      this.#awaitCredit(1);
      const length = this.#credit.part(Math.min(bytes - done, this.#gather.length - this.#filled));
      this.#readInto(this.#gather.subarray(this.#filled, this.#filled + length), offset + done);
      this.#filled += length;
      done += length;
      this.#credit.spend(length);
      if (this.#filled === this.#gather.length) this.#flush({ more: false });
    }
  }

  #readInto(into: Buffer, offset: number): void {
    this.#port.throwIfStopped();
    if (this.#options.fd >= 0) readWhole(this.#options.fd, into, offset);
    else this.#readByMessage(into, offset);
  }

  #readByMessage(into: Buffer, offset: number): void {
    this.#port.post({ kind: "read", offset, length: into.length });
    this.#until(() => this.#read !== undefined);
    into.set(this.#read ?? []);
    this.#read = undefined;
  }

  #awaitCredit(bytes: number): void {
    if (this.#credit.has(bytes)) return;
    // What was let through goes out, or a low rate would be sent in bursts.
    this.#flush({ more: false });
    this.#until(() => this.#credit.has(bytes));
  }

  #sendDirectly(offset: number, length: number): void {
    this.#flush({ more: true });
    for (let done = 0; done < length; ) {
      this.#awaitCredit(1);
      const piece = { offset: offset + done, length: this.#credit.part(Math.min(length - done, pieceBytes)) };
      this.#hashPiece(piece);
      this.#sendPiece(piece);
      done += piece.length;
      this.#credit.spend(piece.length);
      this.#options.signals.addSent(piece.length);
    }
  }

  /** Points are sealed, so what is read here is what is sent; and it is in memory then. */
  #hashPiece({ offset, length }: Range): void {
    if (this.#hash === undefined) return;
    const read = this.#gather.subarray(unitHeaderBytes, unitHeaderBytes + length);
    readWhole(this.#options.fd, read, offset);
    this.#hash.update(read);
  }

  #sendPiece({ offset, length }: Range): void {
    for (let done = 0; done < length; ) {
      const rest = { offset: offset + done, length: length - done };
      if (this.#isDirect) done += this.#sendFromFile(rest);
      else {
        const read = this.#gather.subarray(unitHeaderBytes, unitHeaderBytes + rest.length);
        readWhole(this.#options.fd, read, rest.offset);
        this.#socket.send(read, { more: false });
        done = length;
      }
    }
  }

  /** How much was sent; none where the kernel cannot send from this file by itself. */
  #sendFromFile(range: Range): number {
    try {
      this.#port.throwIfStopped();
      const sent = this.#socket.sendFromFile(this.#options.fd, range);
      if (sent === 0) throw endOfFile(range.offset, range.offset + range.length);
      return sent;
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      if (!isUnsupported(error)) throw new SourceError(error);
      this.#isDirect = false;
      return 0;
    }
  }

  #hashUp(): void {
    this.#hash?.update(this.#gather.subarray(this.#hashFrom, this.#filled));
    this.#hashFrom = this.#filled;
  }

  /** `more` when what follows is about to be sent as well. */
  #flush({ more }: { readonly more: boolean }): void {
    if (this.#filled > this.#from) {
      this.#hashUp();
      this.#socket.send(this.#gather.subarray(this.#from, this.#filled), { more });
      this.#options.signals.addSent(this.#filled - this.#from);
    }
    this.#from = unitHeaderBytes;
    this.#filled = unitHeaderBytes;
    this.#hashFrom = unitHeaderBytes;
  }

  #end(): void {
    const end = renderEnd();
    this.#socket.send(end, { more: false });
    this.#options.signals.addSent(end.length);
    this.#socket.endSending();
    let answer: Buffer = Buffer.alloc(0);
    const buffer = Buffer.alloc(1024);
    for (let received = this.#socket.receive(buffer); received > 0; received = this.#socket.receive(buffer)) {
      answer = Buffer.concat([answer, buffer.subarray(0, received)]);
      parseStatus(answer);
    }
    if (parseStatus(answer)?.kind !== "accepted") throw new Error("the connection was closed");
  }
}
