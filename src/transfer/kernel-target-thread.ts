// The target's side of a kernel lane on its thread: large extents go from the socket through a pipe into the staging file without
// passing through this process; small ones are received together and written one by one. Where a unit belongs is asked of the main
// thread before any of it is taken, and nothing is written outside that.
import { closeSync, readSync } from "node:fs";
import type { MessagePort } from "node:worker_threads";
import { LongshoreError } from "../domain/errors.ts";
import { openPipe, type Pipe, spliceOut } from "../native/socket-calls.ts";
import { BlockingPort } from "./blocking-port.ts";
import { BlockingSocket, directBytesMin, isUnsupported } from "./blocking-socket.ts";
import { parseUnitHeader, renderStatus, type UnitHeader, unitHeaderBytes } from "./lane-codec.ts";
import { type FlatExtents, type FromTarget, renderError, type ToTarget } from "./lane-messages.ts";
import { LaneSignals } from "./lane-signals.ts";
import { type Place, UnitPlaces } from "./unit-places.ts";
import { MessageWriter, writeWhole } from "./unit-writer.ts";

export interface KernelTargetJob {
  readonly role: "kernelTarget";
  readonly idleMs: number;
  readonly windowBytesMax: number;
  readonly signals: SharedArrayBuffer;
}

const bufferBytes = 256 * 1024;
const pipeBytes = 1024 * 1024;

/** Runs one lane, and blocks its thread all the while; the last message on the port is `closed`. */
export function runKernelTarget(port: MessagePort, job: KernelTargetJob): void {
  const signals = new LaneSignals(job.signals);
  const messages = new BlockingPort<ToTarget, FromTarget>(port, signals);
  try {
    const accepted = messages.wait();
    if (accepted.kind !== "accept" || accepted.socketFd === undefined) return;
    const socket = new BlockingSocket(accepted.socketFd, job.idleMs, signals);
    receiveUnits(messages, socket, { ...job, fd: accepted.fd });
  } catch {
    // The connection is gone, or nobody wants it any more; that is all there is to tell.
  } finally {
    messages.post({ kind: "closed" });
  }
}

type Options = KernelTargetJob & { readonly fd: number };

function receiveUnits(port: BlockingPort<ToTarget, FromTarget>, socket: BlockingSocket, options: Options): void {
  const target = new KernelTarget(port, socket, options);
  try {
    socket.send(renderStatus(), { more: false });
    target.run();
    port.post({ kind: "ended" });
    // The same answer as to the ticket tells the sender that everything it sent was taken.
    socket.send(renderStatus(), { more: false });
    socket.endSending();
  } catch (error) {
    port.post({ kind: "ended", error: renderError(error) });
  } finally {
    target.close();
  }
}

class KernelTarget {
  readonly #port: BlockingPort<ToTarget, FromTarget>;
  readonly #socket: BlockingSocket;
  readonly #options: Options;
  /** What was received and not yet taken lies in [from, to). */
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  #from = 0;
  #to = 0;
  /**
   * Made for this lane, and closed with it: what an error leaves in it must never reach another unit. Until the file turns out to
   * be one that takes nothing from a pipe.
   */
  #pipe: Pipe | undefined;
  #isDirect = true;
  readonly #writer: MessageWriter;
  /** Bytes handed over and not yet written. */
  #bytesInFlight = 0;

  constructor(port: BlockingPort<ToTarget, FromTarget>, socket: BlockingSocket, options: Options) {
    this.#port = port;
    this.#socket = socket;
    this.#options = options;
    this.#writer = new MessageWriter((message) => {
      this.#bytesInFlight += message.data.length;
      port.post(message);
    });
  }

  /** Returns when the stream has ended, and all of it is written and told of. */
  run(): void {
    for (let header = this.#nextHeader(); header !== undefined; header = this.#nextHeader()) this.#takeUnit(header);
    if (this.#from < this.#to || this.#fill(1) > 0)
      throw new LongshoreError("BadRequest", "lane: bytes follow the end");
    while (this.#bytesInFlight > 0) this.#takeWritten(this.#port.wait());
    this.#port.post({ kind: "finished" });
    this.#port.wait();
  }

  close(): void {
    if (this.#pipe === undefined) return;
    closeSync(this.#pipe.readFd);
    closeSync(this.#pipe.writeFd);
  }

  #nextHeader(): UnitHeader | undefined {
    while (this.#to - this.#from < unitHeaderBytes) this.#fillSome(unitHeaderBytes - (this.#to - this.#from));
    this.#from += unitHeaderBytes;
    return parseUnitHeader(this.#buffer.subarray(this.#from - unitHeaderBytes, this.#from));
  }

  #takeUnit(header: UnitHeader): void {
    const extents = this.#ask(header);
    if (this.#options.fd < 0) this.#handOver(header, extents);
    else this.#store(header, new UnitPlaces(extents));
    this.#port.post({ kind: "arrived", unit: header.unit });
  }

  #ask(header: UnitHeader): FlatExtents {
    this.#port.post({ kind: "begin", ...header });
    for (;;) {
      const message = this.#port.wait();
      if (message.kind === "extents") return message.extents;
      this.#takeWritten(message);
    }
  }

  #store({ payloadBytes }: UnitHeader, places: UnitPlaces): void {
    for (let left = payloadBytes; left > 0; ) {
      const place = places.take(left);
      for (let done = 0; done < place.length; ) {
        const rest = { offset: place.offset + done, length: place.length - done };
        done += this.#storeSome(rest, left - done);
      }
      left -= place.length;
    }
  }

  /** Takes bytes for the beginning of this place; how many. `left` are still to come of the unit. */
  #storeSome(place: Place, left: number): number {
    this.#port.throwIfStopped();
    if (this.#from === this.#to && this.#isDirect && place.length >= directBytesMin) return this.#splice(place);
    // As a rule the next unit's header comes along, which saves a call.
    if (this.#from === this.#to) this.#fillSome(left + unitHeaderBytes);
    const length = Math.min(place.length, this.#to - this.#from);
    writeWhole(this.#options.fd, this.#buffer.subarray(this.#from, this.#from + length), place.offset);
    this.#from += length;
    return length;
  }

  #splice({ offset, length }: Place): number {
    this.#pipe ??= openPipe(pipeBytes);
    const taken = this.#socket.spliceInto(this.#pipe, Math.min(length, pipeBytes));
    if (taken === 0) throw cutShort();
    for (let done = 0; done < taken; ) {
      this.#port.throwIfStopped();
      const rest = { offset: offset + done, length: taken - done };
      done += this.#isDirect ? this.#spliceOut(this.#pipe, rest) : this.#copyOut(this.#pipe, rest);
    }
    return taken;
  }

  /** How much was written; nothing where the file takes nothing from a pipe. */
  #spliceOut(pipe: Pipe, place: Place): number {
    try {
      return spliceOut(pipe, this.#options.fd, place) ?? 0;
    } catch (error) {
      if (!isUnsupported(error)) throw error;
      this.#isDirect = false;
      return 0;
    }
  }

  #copyOut({ readFd }: Pipe, { offset, length }: Place): number {
    const read = readSync(readFd, this.#buffer, 0, Math.min(length, bufferBytes), null);
    writeWhole(this.#options.fd, this.#buffer.subarray(0, read), offset);
    return read;
  }

  /** For a sink that is no file. */
  #handOver({ unit, payloadBytes }: UnitHeader, extents: FlatExtents): void {
    this.#writer.begin(unit, extents);
    for (let left = payloadBytes; left > 0; ) {
      if (this.#from === this.#to) this.#fillSome(left);
      const data = this.#buffer.subarray(this.#from, Math.min(this.#to, this.#from + left));
      this.#from += data.length;
      left -= data.length;
      this.#writer.put(data, left === 0);
      while (this.#bytesInFlight >= this.#options.windowBytesMax) this.#takeWritten(this.#port.wait());
    }
  }

  #takeWritten(message: ToTarget): void {
    if (message.kind === "written") this.#bytesInFlight -= message.bytes;
  }

  /** Whether the main thread has still to write; a slow disk is not an idle lane. */
  #isWriting(): boolean {
    for (let message = this.#port.poll(); message !== undefined; message = this.#port.poll())
      this.#takeWritten(message);
    return this.#bytesInFlight > 0;
  }

  #fillSome(bytesMax: number): void {
    if (this.#fill(bytesMax) === 0) throw cutShort();
  }

  /** Receives at most so many bytes, as far as there is room; 0 at the stream's end. */
  #fill(bytesMax: number): number {
    if (this.#from === this.#to) {
      this.#from = 0;
      this.#to = 0;
    }
    const into = this.#buffer.subarray(this.#to, this.#to + bytesMax);
    const received = this.#socket.receive(into, () => this.#isWriting());
    this.#to += received;
    return received;
  }
}

function cutShort(): LongshoreError {
  return new LongshoreError("StreamTorn", "lane: it was cut short");
}
