// Many reads of an open file that wait for the disk together (Linux AIO, io_submit(2)). It is for reads past the page cache: of
// scattered blocks, read one after the other, each would wait for the disk, and these can have no reading ahead.

import koffi from "koffi";
import { systemError } from "../base/system-error.ts";
import { libc } from "./libc.ts";

// glibc has no wrappers for these calls.
const ioSetup = libc.func("syscall", "long", ["long", "uint", "void *"]);
const ioDestroy = libc.func("syscall", "long", ["long", "ulong"]);
const ioSubmit = libc.func("syscall", "long", ["long", "ulong", "long", "void *"]);
const ioGetEvents = libc.func("syscall", "long", ["long", "ulong", "long", "long", "void *", "void *"]);

interface CallNumbers {
  readonly setup: number;
  readonly destroy: number;
  readonly submit: number;
  readonly getEvents: number;
}

const callNumbers: Partial<Record<NodeJS.Architecture, CallNumbers>> = {
  x64: { setup: 206, destroy: 207, submit: 209, getEvents: 208 },
  arm64: { setup: 0, destroy: 1, submit: 2, getEvents: 4 },
};

const requestBytes = 64;
const eventBytes = 32;
const pread = 0;

/** Whoever opens it closes it; an open one takes from what all processes of the machine share (fs.aio-max-nr). */
export interface ReadQueue {
  /** How many pieces one call may read. */
  readonly depth: number;
  /**
   * Reads the pieces into `into`, one after the other there, and returns once all have been read. Answers how many bytes
   * each has got: fewer than asked for, as with read(2), where the file ends. Throws what reading any of them failed with.
   */
  read(fd: number, pieces: readonly { readonly offset: number; readonly length: number }[], into: Uint8Array): number[];
  close(): void;
}

/** `undefined` where the system does not have such reads, does not allow them, or has no more room for them. */
export function openReadQueue(depth: number): ReadQueue | undefined {
  const calls = callNumbers[process.arch];
  if (calls === undefined) return undefined;
  const context = new BigUint64Array(1);
  if (ioSetup(calls.setup, depth, context) < 0) return undefined;
  return new AioQueue(calls, depth, context[0] as bigint);
}

class AioQueue implements ReadQueue {
  readonly depth: number;
  readonly #calls: CallNumbers;
  readonly #context: bigint;
  readonly #requests: DataView;
  readonly #pointers: BigUint64Array;
  readonly #events: DataView;
  readonly #answers: Uint8Array;

  constructor(calls: CallNumbers, depth: number, context: bigint) {
    this.depth = depth;
    this.#calls = calls;
    this.#context = context;
    this.#requests = new DataView(new ArrayBuffer(depth * requestBytes));
    this.#answers = new Uint8Array(depth * eventBytes);
    this.#events = new DataView(this.#answers.buffer);
    const first = koffi.address(new Uint8Array(this.#requests.buffer));
    this.#pointers = BigUint64Array.from({ length: depth }, (_, at) => first + BigInt(at * requestBytes));
  }

  read(fd: number, pieces: readonly { offset: number; length: number }[], into: Uint8Array): number[] {
    const bytes = pieces.reduce((sum, { length }) => sum + length, 0);
    if (pieces.length > this.depth || bytes > into.length) {
      throw new RangeError(`${pieces.length} pieces of ${bytes} bytes do not fit ${this.depth} of ${into.length}`);
    }
    let memory = koffi.address(into);
    for (const [at, { offset, length }] of pieces.entries()) {
      this.#request(at, { fd, offset, length, memory });
      memory += BigInt(length);
    }
    const results = new Array<number>(pieces.length).fill(0);
    for (let done = 0; done < pieces.length; ) {
      const submitted = this.#submit(done, pieces.length - done);
      this.#await(submitted, results);
      done += submitted;
    }
    const failed = results.find((result) => result < 0);
    if (failed !== undefined) throw systemError("pread", -failed);
    return results;
  }

  close(): void {
    ioDestroy(this.#calls.destroy, this.#context);
  }

  #request(at: number, piece: { fd: number; offset: number; length: number; memory: bigint }): void {
    const [view, start] = [this.#requests, at * requestBytes];
    view.setBigUint64(start, BigInt(at), true);
    view.setUint16(start + 16, pread, true);
    view.setUint32(start + 20, piece.fd, true);
    view.setBigUint64(start + 24, piece.memory, true);
    view.setBigUint64(start + 32, BigInt(piece.length), true);
    view.setBigInt64(start + 40, BigInt(piece.offset), true);
  }

  /** How many of them were begun, at least one; none is under way when it throws. */
  #submit(first: number, count: number): number {
    const begun = ioSubmit(this.#calls.submit, this.#context, count, this.#pointers.subarray(first));
    if (begun > 0) return Number(begun);
    throw systemError("io_submit", koffi.errno());
  }

  /** The system writes into our memory until each has been answered, so nothing else ends this. */
  #await(count: number, results: number[]): void {
    for (let done = 0; done < count; ) {
      const left = count - done;
      const answered = Number(ioGetEvents(this.#calls.getEvents, this.#context, left, left, this.#answers, null));
      if (answered < 0) requireInterrupted(koffi.errno());
      for (let at = 0; at < answered; at++) {
        const start = at * eventBytes;
        results[Number(this.#events.getBigUint64(start, true))] = Number(this.#events.getBigInt64(start + 16, true));
      }
      done += Math.max(0, answered);
    }
  }
}

function requireInterrupted(errno: number): void {
  const error = systemError("io_getevents", errno);
  if (error.code !== "EINTR") throw error;
}
