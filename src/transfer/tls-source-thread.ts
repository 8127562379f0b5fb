// The source's side of a tls lane on its thread: connects, has the main thread judge who answers, shows the ticket, and sends.
import { constants } from "node:crypto";
import { connect, createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import type { MessagePort } from "node:worker_threads";
import { whenIdle } from "./idle-socket.ts";
import { parseStatus, renderPreamble } from "./lane-codec.ts";
import { type FromSource, renderError, type SourceEnded, type ToSource } from "./lane-messages.ts";
import { LaneSender } from "./lane-sender.ts";
import { LaneSignals } from "./lane-signals.ts";
import { keepAliveMs, peerChain, type TlsMaterial, tlsSettings } from "./tls-peer.ts";

export interface TlsSourceJob {
  readonly role: "tlsSource";
  readonly host: string;
  readonly port: number;
  readonly material: TlsMaterial;
  readonly ticket: string;
  readonly fd: number;
  readonly hasDigests: boolean;
  readonly isPaced: boolean;
  readonly idleMs: number;
  readonly signals: SharedArrayBuffer;
}

/** Runs one lane; the last message on the port is `ended`. */
export function runTlsSource(port: MessagePort, job: TlsSourceJob): void {
  const post = (message: FromSource) => port.postMessage(message);
  try {
    new TlsSource(port, job, post);
  } catch (error) {
    // Such as a certificate that cannot be read.
    post({ kind: "ended", isTaken: false, error: renderError(error) });
  }
}

class TlsSource {
  readonly #job: TlsSourceJob;
  readonly #socket: TLSSocket;
  readonly #post: (message: FromSource) => void;
  #sender: LaneSender | undefined;
  #failure: SourceEnded | undefined;
  #answer: Buffer = Buffer.alloc(0);

  constructor(port: MessagePort, job: TlsSourceJob, post: (message: FromSource) => void) {
    this.#job = job;
    this.#post = post;
    this.#socket = dial(job);
    this.#socket.once("secureConnect", this.#onSecure);
    this.#socket.on("error", this.#onError);
    this.#socket.on("close", this.#onClose);
    port.on("message", (message: ToSource) => this.#take(message));
  }

  #take(message: ToSource): void {
    if (this.#sender !== undefined) this.#sender.take(message);
    else if (message.kind === "destroy") this.#fail(new Error("it was destroyed"));
    else if (message.kind === "proceed") this.#showTicket();
  }

  readonly #onSecure = () => {
    this.#post({ kind: "peer", chain: peerChain(this.#socket).map(({ raw }) => raw) });
  };

  #showTicket(): void {
    if (this.#socket.destroyed) return;
    this.#socket.on("data", this.#onData);
    this.#socket.on("end", this.#onEnd);
    this.#socket.write(renderPreamble(this.#job.ticket));
  }

  readonly #onData = (chunk: Buffer) => {
    this.#answer = Buffer.concat([this.#answer, chunk]);
    try {
      const status = parseStatus(this.#answer);
      if (status?.kind === "refused") this.#fail(status.error);
      if (status?.kind === "accepted") this.#open();
    } catch (error) {
      this.#fail(error);
    }
  };

  readonly #onEnd = () => this.#fail(new Error("it was closed without an answer"));
  readonly #onError = (error: Error) => this.#fail(error);

  /** Once nothing is connected any more. */
  readonly #onClose = () => {
    this.#fail(new Error("it was closed before it opened"));
    if (this.#failure !== undefined) this.#post(this.#failure);
  };

  #fail(error: unknown): void {
    const blame = this.#socket.authorizationError ? "certificate" : undefined;
    this.#failure ??= { kind: "ended", isTaken: false, error: renderError(error), blame };
    this.#socket.destroy();
  }

  #open(): void {
    const { fd, hasDigests, isPaced, idleMs } = this.#job;
    this.#socket.off("data", this.#onData);
    this.#socket.off("end", this.#onEnd);
    this.#socket.off("error", this.#onError);
    this.#socket.off("close", this.#onClose);
    const signals = new LaneSignals(this.#job.signals);
    const sender = new LaneSender(this.#socket, { fd, hasDigests, isPaced, signals, post: this.#post });
    this.#sender = sender;
    this.#post({ kind: "opened" });
    whenIdle(
      this.#socket,
      idleMs,
      () => !sender.isWaiting,
      () => sender.destroy(new Error(`nothing moved for ${idleMs} ms`)),
    );
  }
}

let newest: { readonly key: string; readonly context: SecureContext } | undefined;

/**
 * For all of a thread's connections, for as long as the material is the same: making one takes a millisecond, and some 100 KiB
 * outside the heap that nobody sees. No session is ever resumed with it: each connection shows its certificate. Throws what makes
 * the material unusable.
 */
function secureContext(material: TlsMaterial): SecureContext {
  const key = JSON.stringify(material);
  if (newest?.key !== key) {
    const secureOptions = constants.SSL_OP_NO_TICKET;
    newest = { key, context: createSecureContext({ ...material, ...tlsSettings, secureOptions }) };
  }
  return newest.context;
}

function dial({ host, port, material }: TlsSourceJob): TLSSocket {
  const socket = connect({
    ...{ host, port, secureContext: secureContext(material) },
    // Agents are known by the URI name of their certificates, which the main thread judges; hosts and addresses change.
    checkServerIdentity: () => undefined,
  });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, keepAliveMs);
  return socket;
}
