// The target's side of kernel lanes on the main thread: plain TCP, on which the kernel moves payload between file and socket.
//
// It protects against accidents, not against attackers: whoever can read or change what travels on this network can read and change
// the volumes, and take a lane over with the ticket seen there. It is for networks that are trusted, or encrypted already (WireGuard,
// IPsec, a storage network of its own). What it does hold to is the same as for every lane: a ticket opens one lane, once; a unit
// goes where the persisted plan says, or nowhere; and damage by accident is found when the stored unit is compared with its digest.
import { closeSync } from "node:fs";
import type { Socket } from "node:net";
import type { MessagePort } from "node:worker_threads";
import { LongshoreError } from "../domain/errors.ts";
import { hangUp } from "../native/socket-calls.ts";
import { adoptSocket } from "./adopted-socket.ts";
import type { KernelTargetJob } from "./kernel-target-thread.ts";
import type { LaneServer } from "./lane.ts";
import { refusalOf, renderStatus } from "./lane-codec.ts";
import type { Connection } from "./lane-listener.ts";
import type { FromTarget, ToTarget } from "./lane-messages.ts";
import { hangUpWith, readPreamble } from "./lane-opening.ts";
import { type LaneServerOptions, type LaneServing, serve } from "./lane-serving.ts";
import { LaneSignals } from "./lane-signals.ts";
import type { ThreadLease } from "./lane-threads.ts";
import type { TargetLane } from "./target-lane.ts";
import { keepAliveMs } from "./tls-peer.ts";

/** Resolves when the port is open. */
export function openKernelLaneServer(options: LaneServerOptions): Promise<LaneServer> {
  return serve(options, (socket, settings) => new KernelConnection(socket, settings));
}

type Settings = LaneServing<LaneServerOptions>;

class KernelConnection implements Connection {
  readonly #settings: Settings;
  readonly #socket: Socket;
  readonly #remoteAddress: string | undefined;
  readonly #signals = new LaneSignals();
  readonly #stopped = new AbortController();
  readonly closed: Promise<void>;
  /** The connection, from when Node does not have it any more until it is closed. */
  #socketFd: number | undefined;

  constructor(socket: Socket, settings: Settings) {
    this.#settings = settings;
    this.#socket = socket;
    this.#remoteAddress = socket.remoteAddress;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    const left = new Promise((resolve) => socket.once("close", resolve));
    this.closed = Promise.all([left, this.#serve()]).then(() => {});
  }

  stop(): void {
    this.#stopped.abort(new LongshoreError("StreamTorn", "lane: the server closes"));
    this.#socket.destroy();
    this.#interrupt();
  }

  /** Gets the thread out of whatever it waits for. */
  #interrupt(): void {
    this.#signals.stop();
    if (this.#socketFd !== undefined) hangUp(this.#socketFd);
  }

  async #serve(): Promise<void> {
    try {
      const { ticket, rest } = await readPreamble(this.#socket, this.#deadline());
      if (rest.length > 0) throw new LongshoreError("BadRequest", "lane: bytes came before the ticket was accepted");
      await this.#runOn(await this.#thread(), ticket);
    } catch (error) {
      this.#refuse(error);
    }
  }

  /** A thread of its own, if one comes free in time. */
  async #thread(): Promise<ThreadLease> {
    const { threads, limits, clock } = this.#settings;
    const job: KernelTargetJob = {
      ...{ role: "kernelTarget", idleMs: limits.idleMs, windowBytesMax: limits.windowBytesMax },
      signals: this.#signals.buffer,
    };
    const found = new AbortController();
    const late = new AbortController();
    const giveUp = () => late.abort(new LongshoreError("TicketRefused", "lane: too many lanes are open here"));
    clock.sleep(limits.openingMs, found.signal).then(giveUp, () => {});
    const signal = AbortSignal.any([this.#stopped.signal, late.signal]);
    try {
      return await threads.run(job, { isBlocking: true, signal, onRevoke: () => this.stop() });
    } finally {
      found.abort();
    }
  }

  async #runOn({ port, release }: ThreadLease, ticket: string): Promise<void> {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    let lane: TargetLane | undefined;
    port.on("message", (message: FromTarget) => {
      if (message.kind === "closed") end();
      else lane?.take(message);
    });
    port.on("close", end);
    try {
      lane = this.#open(ticket, port);
    } catch (error) {
      this.#signals.stop();
      this.#refuse(error);
    }
    await ended;
    this.#closeSocket();
    lane?.threadEnded(new LongshoreError("StreamTorn", "lane: its thread ended"));
    release();
  }

  #open(ticket: string, port: MessagePort): TargetLane {
    const admission = this.#settings.registry.redeem(ticket);
    const socketFd = adoptSocket(this.#socket);
    if (socketFd === undefined) throw new LongshoreError("StreamTorn", "lane: it was closed before it opened");
    this.#socketFd = socketFd;
    const post = (message: ToTarget, transfer: ArrayBuffer[] = []) => {
      port.postMessage(message, transfer);
      if (message.kind === "stop") this.#interrupt();
      else this.#signals.ring();
    };
    const lane = this.#settings.registry.open(admission, { signals: this.#signals, post });
    post({ kind: "accept", fd: admission.sink.fd, socketFd });
    return lane;
  }

  #closeSocket(): void {
    const socketFd = this.#socketFd;
    this.#socketFd = undefined;
    if (socketFd !== undefined) closeSync(socketFd);
  }

  #refuse(error: unknown): void {
    const refusal = refusalOf(error);
    const report = refusal ?? new LongshoreError("StreamTorn", "lane: it did not open", { cause: error });
    if (!this.#stopped.signal.aborted) this.#settings.onRefusal?.(report, this.#remoteAddress);
    if (refusal === undefined) this.#socket.destroy();
    else hangUpWith(this.#socket, renderStatus(refusal), this.#deadline());
  }

  #deadline() {
    return { clock: this.#settings.clock, timeoutMs: this.#settings.limits.openingMs };
  }
}
