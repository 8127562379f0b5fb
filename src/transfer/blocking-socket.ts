// A connection on a thread that blocks. It waits in slices, to see between them whether it is still wanted; the main thread hangs
// up as well to end a wait at once.
import { systemClock } from "../base/clock.ts";
import { errnoOf } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import {
  endSending,
  isQuiet,
  makeBlocking,
  type Pipe,
  receive,
  sendFromFile,
  sendSome,
  spliceIn,
} from "../native/socket-calls.ts";
import { StoppedError, sliceMs } from "./blocking-port.ts";
import type { LaneSignals } from "./lane-signals.ts";

/** From this length on bytes are moved by the kernel alone; fewer cost more calls than gathering them does. */
export const directBytesMin = 64 * 1024;

/** Whether the kernel cannot move bytes between this file and a socket or pipe by itself: then they are copied. */
export function isUnsupported(error: unknown): boolean {
  return ["EINVAL", "ENOSYS", "EOPNOTSUPP"].includes(errnoOf(error) ?? "");
}

export class BlockingSocket {
  readonly #fd: number;
  readonly #idleMs: number;
  readonly #signals: LaneSignals;

  /** `idleMs`: a call throws `StreamTorn` when nothing moves for so long. */
  constructor(fd: number, idleMs: number, signals: LaneSignals) {
    this.#fd = fd;
    this.#idleMs = idleMs;
    this.#signals = signals;
    makeBlocking(fd, Math.min(sliceMs, idleMs));
  }

  /** Sends all of it. With `more`, it may wait for what is sent next, to travel in one packet. */
  send(data: Uint8Array, { more }: { readonly more: boolean }): void {
    for (let done = 0; done < data.length; ) {
      done += this.#moving(() => sendSome(this.#fd, data.subarray(done), { more }));
    }
  }

  /** Sends a part of a file's range, from its beginning; 0 when the file ends there. Throws a SystemError when it cannot be read. */
  sendFromFile(fd: number, range: { readonly offset: number; readonly length: number }): number {
    return this.#moving(() => sendFromFile(this.#fd, fd, range));
  }

  /** Fills a part of `into`; 0 at the stream's end. While it `isBusy`, it is not this connection that is waited for. */
  receive(into: Uint8Array, isBusy?: () => boolean): number {
    return this.#moving(() => receive(this.#fd, into), isBusy);
  }

  /** Moves at most `length` bytes into the pipe; 0 at the stream's end. */
  spliceInto(pipe: Pipe, length: number): number {
    return this.#moving(() => spliceIn(this.#fd, pipe, length));
  }

  endSending(): void {
    endSending(this.#fd);
  }

  /** Whether the other side has neither sent anything nor ended. */
  get isQuiet(): boolean {
    return isQuiet(this.#fd);
  }

  #moving(move: () => number | undefined, isBusy = () => false): number {
    let deadlineMs: number | undefined;
    for (;;) {
      if (this.#signals.isStopped) throw new StoppedError();
      const moved = attempted(move);
      // Who hangs up ends the stream as well, and that is none of the other side's doing.
      if (moved !== undefined && this.#signals.isStopped) throw new StoppedError();
      if (moved !== undefined) return moved;
      const nowMs = systemClock.monotonicMs();
      if (isBusy()) deadlineMs = nowMs + this.#idleMs;
      else deadlineMs ??= nowMs + this.#idleMs - Math.min(sliceMs, this.#idleMs);
      if (nowMs >= deadlineMs) throw new LongshoreError("StreamTorn", `lane: nothing moved for ${this.#idleMs} ms`);
    }
  }
}

const connectionErrnos = [
  "EPIPE",
  "ECONNRESET",
  "ECONNABORTED",
  "ENOTCONN",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
];

function attempted(move: () => number | undefined): number | undefined {
  try {
    return move();
  } catch (error) {
    if (!connectionErrnos.includes(errnoOf(error) ?? "")) throw error;
    throw new LongshoreError("StreamTorn", "lane: it broke", { cause: error });
  }
}
