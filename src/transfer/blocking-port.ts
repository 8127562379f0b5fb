// Messages for a thread that blocks: it looks for them when it likes, or sleeps until there is one.
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type { LaneSignals } from "./lane-signals.ts";

/** How long a thread waits before it looks around. */
export const sliceMs = 250;

/** Breaks off what the thread does, as nobody wants it any more. */
export class StoppedError extends Error {
  constructor() {
    super("it was destroyed");
  }
}

export class BlockingPort<Incoming, Outgoing> {
  readonly #port: MessagePort;
  readonly #signals: LaneSignals;

  constructor(port: MessagePort, signals: LaneSignals) {
    this.#port = port;
    this.#signals = signals;
  }

  post(message: Outgoing): void {
    this.#port.postMessage(message);
  }

  /** The next message there is already. */
  poll(): Incoming | undefined {
    return receiveMessageOnPort(this.#port)?.message;
  }

  /** The next message, `undefined` when there was none within the time. Throws when the lane is stopped. */
  next(timeoutMs: number): Incoming | undefined {
    const { rings } = this.#signals;
    this.throwIfStopped();
    const message = this.poll();
    if (message !== undefined) return message;
    this.#signals.waitPast(rings, timeoutMs);
    this.throwIfStopped();
    return this.poll();
  }

  /** The next message, however long it takes. */
  wait(): Incoming {
    let message = this.next(sliceMs);
    while (message === undefined) message = this.next(sliceMs);
    return message;
  }

  throwIfStopped(): void {
    if (this.#signals.isStopped) throw new StoppedError();
  }
}
