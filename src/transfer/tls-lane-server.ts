// The target's side of tls lanes on the main thread: takes connections, gives each to a thread, and decides who may open a lane.
import { X509Certificate } from "node:crypto";
import { closeSync } from "node:fs";
import type { Socket } from "node:net";
import { LongshoreError } from "../domain/errors.ts";
import { adoptSocket } from "./adopted-socket.ts";
import type { LaneServer } from "./lane.ts";
import { refusalOf, renderStatus } from "./lane-codec.ts";
import { parseError } from "./lane-failure.ts";
import type { Connection } from "./lane-listener.ts";
import type { FromTarget, ToTarget } from "./lane-messages.ts";
import { type LaneServerOptions, type LaneServing, serve } from "./lane-serving.ts";
import { LaneSignals } from "./lane-signals.ts";
import type { ThreadLease } from "./lane-threads.ts";
import type { TargetLane } from "./target-lane.ts";
import type { Authorize, LaneCredentials } from "./tls-peer.ts";
import type { TlsTargetJob } from "./tls-target-thread.ts";

export interface TlsLaneServerOptions extends LaneServerOptions {
  readonly credentials: LaneCredentials;
  /** PEM texts of the CAs whose clusters may connect; asked for at every connection. None means nobody. */
  trust(): readonly string[];
  readonly authorize: Authorize;
}

/** Resolves when the port is open. */
export function openTlsLaneServer(options: TlsLaneServerOptions): Promise<LaneServer> {
  return serve(options, (socket, settings) => new TlsConnection(socket, settings));
}

type Settings = LaneServing<TlsLaneServerOptions>;

/** One connection, on a thread of its own or one it shares. */
class TlsConnection implements Connection {
  readonly #settings: Settings;
  readonly #remoteAddress: string | undefined;
  readonly #signals = new LaneSignals();
  readonly #stopped = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  readonly closed = this.#closed.promise;
  #lease: ThreadLease | undefined;
  #clusterUid: string | undefined;
  #lane: TargetLane | undefined;

  constructor(socket: Socket, settings: Settings) {
    this.#settings = settings;
    this.#remoteAddress = socket.remoteAddress;
    const socketFd = adoptSocket(socket);
    if (socketFd === undefined) this.#closed.resolve();
    else void this.#start(socketFd);
  }

  stop(): void {
    this.#stopped.abort(new LongshoreError("StreamTorn", "lane: the server closes"));
    this.#post({ kind: "stop" });
  }

  async #start(socketFd: number): Promise<void> {
    const { threads, limits, clock } = this.#settings;
    // All threads may be held by lanes of the other transport: whoever waits for one so long is told, by being hung up on.
    const found = new AbortController();
    const late = new AbortController();
    const tooMany = new LongshoreError("TicketRefused", "lane: too many lanes are open here");
    clock.sleep(limits.openingMs, found.signal).then(
      () => late.abort(tooMany),
      () => {},
    );
    const signal = AbortSignal.any([this.#stopped.signal, late.signal]);
    try {
      this.#lease = await threads.run(this.#job(socketFd), { isBlocking: false, signal, onRevoke: () => this.stop() });
    } catch (error) {
      closeSync(socketFd);
      if (error === tooMany) this.#report(tooMany);
      else if (!this.#stopped.signal.aborted) {
        this.#report(new LongshoreError("Unauthenticated", "lane: our certificates cannot be used", { cause: error }));
      }
      return this.#closed.resolve();
    } finally {
      found.abort();
    }
    this.#lease.port.on("message", (message: FromTarget) => this.#take(message));
    this.#lease.port.on("close", () => this.#onClosed());
    if (this.#stopped.signal.aborted) this.#post({ kind: "stop" });
  }

  #job(socketFd: number): TlsTargetJob {
    const { credentials, trust, limits } = this.#settings;
    const { cert, key } = credentials.current();
    return {
      ...{ role: "tlsTarget", socketFd, material: { cert, key, ca: [...trust()] }, signals: this.#signals.buffer },
      ...{ openingMs: limits.openingMs, idleMs: limits.idleMs, windowBytesMax: limits.windowBytesMax },
    };
  }

  #post(message: ToTarget, transfer: ArrayBuffer[] = []): void {
    this.#lease?.port.postMessage(message, transfer);
  }

  #take(message: FromTarget): void {
    try {
      if (message.kind === "closed") this.#onClosed();
      else if (message.kind === "refused") this.#report(parseError(message.error) as LongshoreError);
      else if (message.kind === "peer") this.#judge(message.chain);
      else if (message.kind === "ticket") this.#open(message.ticket);
      else this.#lane?.take(message);
    } catch (error) {
      this.#refuse(error);
    }
  }

  /** Throws `Unauthenticated` unless `authorize` knows the certificate, which a CA of ours vouches for. */
  #judge(chain: readonly Uint8Array[]): void {
    const peer = this.#settings.authorize(chain.map((der) => new X509Certificate(der)));
    if (peer === undefined) {
      throw new LongshoreError("Unauthenticated", "lane: the client certificate is not one of an agent known here");
    }
    this.#clusterUid = peer.clusterUid;
    this.#post({ kind: "proceed" });
  }

  #open(ticket: string): void {
    if (this.#clusterUid === undefined) throw new LongshoreError("Unauthenticated", "lane: nobody was let in");
    const admission = this.#settings.registry.redeem(ticket, this.#clusterUid);
    const post = (message: ToTarget, transfer?: ArrayBuffer[]) => this.#post(message, transfer);
    this.#lane = this.#settings.registry.open(admission, { signals: this.#signals, post });
    this.#post({ kind: "accept", fd: admission.sink.fd });
  }

  #refuse(error: unknown): void {
    const refusal = refusalOf(error);
    this.#report(refusal ?? new LongshoreError("StreamTorn", "lane: it did not open", { cause: error }));
    if (refusal === undefined) this.stop();
    else this.#post({ kind: "refuse", status: renderStatus(refusal) });
  }

  #onClosed(): void {
    this.#lane?.threadEnded(new LongshoreError("StreamTorn", "lane: its thread ended"));
    this.#lease?.release();
    this.#closed.resolve();
  }

  #report(error: LongshoreError): void {
    this.#settings.onRefusal?.(error, this.#remoteAddress);
  }
}
