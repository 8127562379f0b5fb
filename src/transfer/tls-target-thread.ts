// The target's side of a tls connection on its thread: handshake, ticket, and then a lane into the staging file. Who may
// do what is decided on the main thread.
import { Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import type { MessagePort } from "node:worker_threads";
import { type Clock, systemClock } from "../base/clock.ts";
import { tookShortLived } from "../base/memory.ts";
import { LongshoreError } from "../domain/errors.ts";
import { whenIdle } from "./idle-socket.ts";
import { refusalOf, renderStatus } from "./lane-codec.ts";
import { type FromTarget, renderError, type ToTarget } from "./lane-messages.ts";
import { hangUpWith, readPreamble } from "./lane-opening.ts";
import { LaneReceiver } from "./lane-receiver.ts";
import { LaneSignals } from "./lane-signals.ts";
import { keepAliveMs, peerChain, type TlsMaterial, tlsSettings } from "./tls-peer.ts";

/** About what OpenSSL takes for a connection and its settings, outside the heap. */
const connectionBytes = 192 * 1024;

export interface TlsTargetJob {
  readonly role: "tlsTarget";
  /** An accepted connection, which this thread owns from now on. */
  readonly socketFd: number;
  readonly material: TlsMaterial;
  readonly openingMs: number;
  readonly idleMs: number;
  readonly windowBytesMax: number;
  readonly signals: SharedArrayBuffer;
}

/** Runs one connection; the last message on the port is `closed`. */
export function runTlsTarget(port: MessagePort, job: TlsTargetJob): void {
  new TlsTarget(port, job);
}

class TlsTarget {
  readonly #job: TlsTargetJob;
  readonly #port: MessagePort;
  readonly #clock: Clock = systemClock;
  readonly #plain: Socket;
  #answers = Promise.withResolvers<ToTarget>();
  #receiver: LaneReceiver | undefined;

  constructor(port: MessagePort, job: TlsTargetJob) {
    this.#job = job;
    this.#port = port;
    this.#plain = new Socket({ fd: job.socketFd, readable: true, writable: true, allowHalfOpen: true });
    // An 'error' without a listener would end the thread; the 'close' after it is what is acted on.
    this.#plain.on("error", () => {});
    this.#plain.on("close", () => this.#onClose());
    this.#plain.setNoDelay(true);
    this.#plain.setKeepAlive(true, keepAliveMs);
    port.on("message", (message: ToTarget) => this.#take(message));
    this.#shakeHands();
  }

  /** After the last word the main thread may close the staging file, so nothing may be written from here on. */
  #onClose(): void {
    this.#receiver?.fail(new LongshoreError("StreamTorn", "lane: it was closed within the stream"));
    this.#post({ kind: "closed" });
  }

  #post(message: FromTarget): void {
    this.#port.postMessage(message);
  }

  #take(message: ToTarget): void {
    if (this.#receiver !== undefined) this.#receiver.take(message);
    else if (message.kind === "stop") this.#plain.destroy();
    else this.#answers.resolve(message);
  }

  /** What the main thread answers to a question. */
  async #ask(question: FromTarget): Promise<ToTarget> {
    this.#answers = Promise.withResolvers();
    this.#post(question);
    return this.#answers.promise;
  }

  #shakeHands(): void {
    const server = this.#tlsServer();
    if (server === undefined) return;
    server.on("secureConnection", (socket) => void this.#onSecure(socket));
    server.on("tlsClientError", (error) => {
      this.#report(new LongshoreError("Unauthenticated", "lane: the TLS handshake failed", { cause: error }));
      this.#plain.destroy();
    });
    server.emit("connection", this.#plain);
  }

  /** A server for this one connection: no session of another one can be resumed with it. */
  #tlsServer(): Server | undefined {
    tookShortLived(connectionBytes);
    try {
      return createServer({
        ...this.#job.material,
        ...tlsSettings,
        // An unverified peer gets a reason instead of a broken connection.
        requestCert: true,
        rejectUnauthorized: false,
        handshakeTimeout: this.#job.openingMs,
        allowHalfOpen: true,
      });
    } catch (error) {
      // While certificate and key do not fit nobody is let in, for what is trusted may have changed with them.
      this.#report(new LongshoreError("Unauthenticated", "lane: our certificates cannot be used", { cause: error }));
      this.#plain.destroy();
      return undefined;
    }
  }

  async #onSecure(socket: TLSSocket): Promise<void> {
    socket.on("error", () => {});
    try {
      requireVerified(socket);
      const judged = await this.#ask({ kind: "peer", chain: peerChain(socket).map(({ raw }) => raw) });
      if (judged.kind === "refuse") return this.#hangUp(socket, judged.status);
      const { ticket, rest } = await readPreamble(socket, this.#deadline());
      const answer = await this.#ask({ kind: "ticket", ticket });
      if (answer.kind === "refuse") return this.#hangUp(socket, answer.status);
      if (answer.kind === "accept") this.#open(socket, answer.fd, rest);
    } catch (error) {
      this.#refuse(socket, error);
    }
  }

  #open(socket: TLSSocket, fd: number, rest: Buffer): void {
    const { idleMs, windowBytesMax } = this.#job;
    const signals = new LaneSignals(this.#job.signals);
    socket.write(renderStatus());
    const receiver = new LaneReceiver(socket, rest, {
      fd,
      windowBytesMax,
      signals,
      post: (message) => this.#post(message),
    });
    this.#receiver = receiver;
    // A slow disk is not an idle lane.
    whenIdle(
      socket,
      idleMs,
      () => receiver.isWaiting,
      () => receiver.fail(new LongshoreError("StreamTorn", `lane: nothing moved for ${idleMs} ms`)),
    );
  }

  #refuse(socket: TLSSocket, error: unknown): void {
    const refusal = refusalOf(error);
    this.#report(refusal ?? new LongshoreError("StreamTorn", "lane: it did not open", { cause: error }));
    if (refusal === undefined) socket.destroy();
    else this.#hangUp(socket, renderStatus(refusal));
  }

  #hangUp(socket: TLSSocket, status: Uint8Array): void {
    hangUpWith(socket, status, this.#deadline());
  }

  #deadline() {
    return { clock: this.#clock, timeoutMs: this.#job.openingMs };
  }

  #report(error: LongshoreError): void {
    this.#post({ kind: "refused", error: renderError(error) });
  }
}

/** Throws `Unauthenticated` unless a CA of ours vouches for the certificate, here and now. */
function requireVerified(socket: TLSSocket): void {
  if (socket.authorized && !socket.isSessionReused()) return;
  const why = socket.authorizationError ?? "the session was resumed";
  throw new LongshoreError("Unauthenticated", `lane: no CA trusted here vouches for the client certificate: ${why}`);
}
