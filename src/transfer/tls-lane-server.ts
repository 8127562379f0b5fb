// The target's side of tls lanes: mutual TLS 1.3, a ticket, then frames into the ticket's sink.
import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { LaneBinding, LaneServer, LaneSink } from "./lane.ts";
import { refusalOf, renderStatus } from "./lane-codec.ts";
import { destroyAfter, readPreamble } from "./lane-opening.ts";
import { LaneReceiver, type ReceiveLimits, receiveLimits } from "./lane-receiver.ts";
import { type Admission, LaneTickets } from "./lane-tickets.ts";
import { type Authorize, keepAliveMs, type LaneCredentials, peerChain, renderAddress, tlsVersion } from "./tls-peer.ts";

export interface TlsLaneServerOptions {
  readonly credentials: LaneCredentials;
  /** PEM texts of the CAs whose clusters may connect; asked for at every connection. None means nobody. */
  trust(): readonly string[];
  readonly authorize: Authorize;
  /** Port 0 takes a free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** What peers dial when it is not the host listened on. */
  readonly advertiseHost?: string;
  /** A lane broke; called once for a lane, never for one that was closed by {@link LaneServer.closeLanes}. */
  onLaneError(owner: string, lane: number, error: Error): void;
  /** A connection was turned away before it became a lane; for the log. */
  onRefusal?(error: LongshoreError, remoteAddress: string | undefined): void;
  readonly clock: Clock;
  readonly dice: Dice;
  readonly limits?: Partial<TlsLaneServerLimits>;
}

export interface TlsLaneServerLimits extends ReceiveLimits {
  /** From the connection to the end of the TLS handshake, and again to a whole preamble. */
  readonly openingMs: number;
  /** A lane that neither moves nor writes for so long is closed. */
  readonly idleMs: number;
  readonly connectionsMax: number;
}

const defaultLimits: TlsLaneServerLimits = {
  ...receiveLimits,
  openingMs: 10_000,
  idleMs: 120_000,
  connectionsMax: 1024,
};

/** Resolves when the port is open. */
export async function openTlsLaneServer(options: TlsLaneServerOptions): Promise<LaneServer> {
  const server = new TlsLaneServer(options);
  await server.listen();
  return server;
}

class TlsLaneServer implements LaneServer {
  readonly #options: TlsLaneServerOptions;
  readonly #limits: TlsLaneServerLimits;
  readonly #tickets: LaneTickets;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #lanes = new Map<LaneReceiver, LaneBinding>();
  #material: readonly string[];
  /** What peers dial; known once the server listens, and remembered when it does not any more. */
  address = "";

  constructor(options: TlsLaneServerOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#tickets = new LaneTickets(options.clock, options.dice);
    this.#material = this.#presentMaterial();
    this.#server = createServer({
      ...secureOptions(this.#material),
      // An unverified peer gets a reason instead of a broken connection; see #verifiedCluster.
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: this.#limits.openingMs,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveMs,
    });
    this.#server.maxConnections = this.#limits.connectionsMax;
    // Before the listener of node:tls itself, so that each handshake uses the certificates and trust of its moment.
    this.#server.prependListener("connection", (socket: Socket) => this.#onConnection(socket));
    this.#server.on("secureConnection", (socket) => void this.#onSecure(socket));
    this.#server.on("tlsClientError", (error, socket) => {
      socket.destroy();
      this.#report(new LongshoreError("Unauthenticated", "lane: the TLS handshake failed", { cause: error }), socket);
    });
  }

  async listen(): Promise<void> {
    this.#server.listen(this.#options.listen);
    await once(this.#server, "listening");
    // Such as too many open files: this connection is lost, the server is not.
    this.#server.on("error", (error) =>
      this.#report(new LongshoreError("Unreachable", "lane: a connection could not be accepted", { cause: error })),
    );
    const { address, port } = this.#server.address() as AddressInfo;
    this.address = renderAddress(this.#options.advertiseHost ?? address, port);
  }

  issue(binding: LaneBinding, sink: LaneSink): string {
    return this.#tickets.issue(binding, sink);
  }

  async closeLanes(owner: string): Promise<void> {
    this.#tickets.revoke(owner);
    const lanes = [...this.#lanes].filter(([, binding]) => binding.owner === owner);
    await Promise.all(lanes.map(([receiver]) => receiver.stop()));
  }

  async close(): Promise<void> {
    const closed = this.#server.listening ? once(this.#server, "close") : Promise.resolve();
    this.#server.close();
    this.#tickets.revokeAll();
    const joined = [...this.#lanes.keys()].map((receiver) => receiver.stop());
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([closed, ...joined]);
  }

  #onConnection(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", closeFollows);
    try {
      this.#refresh();
    } catch (error) {
      // While certificate and key do not fit nobody is let in, for what is trusted may have changed with them.
      socket.destroy();
      this.#report(new LongshoreError("Unauthenticated", "lane: our certificates cannot be used", { cause: error }));
    }
  }

  #presentMaterial(): readonly string[] {
    const { cert, key } = this.#options.credentials.current();
    return [cert, key, ...this.#options.trust()];
  }

  #refresh(): void {
    const material = this.#presentMaterial();
    if (isSame(material, this.#material)) return;
    this.#server.setSecureContext(secureOptions(material));
    this.#material = material;
  }

  async #onSecure(socket: TLSSocket): Promise<void> {
    socket.on("error", closeFollows);
    try {
      const clusterUid = this.#verifiedCluster(socket);
      const { ticket, rest } = await readPreamble(socket, this.#deadline());
      this.#open(socket, this.#tickets.redeem(ticket, clusterUid), rest);
    } catch (error) {
      this.#refuse(socket, error);
    }
  }

  /** Throws `Unauthenticated` unless the certificate is verified by a CA of ours and by `authorize`. */
  #verifiedCluster(socket: TLSSocket): string {
    if (!socket.authorized || socket.isSessionReused()) {
      const why = socket.authorizationError ?? "the session was resumed";
      throw new LongshoreError(
        "Unauthenticated",
        `lane: no CA trusted here vouches for the client certificate: ${why}`,
      );
    }
    const peer = this.#options.authorize(peerChain(socket));
    if (peer === undefined) {
      throw new LongshoreError("Unauthenticated", "lane: the client certificate is not one of an agent known here");
    }
    return peer.clusterUid;
  }

  #open(socket: TLSSocket, { binding, sink }: Admission, rest: Buffer): void {
    const onError = (error: Error) => {
      sink.broken?.(error);
      this.#options.onLaneError(binding.owner, binding.lane, error);
    };
    const lane = new LaneReceiver(socket, sink, { limits: this.#limits, onError });
    this.#lanes.set(lane, binding);
    void lane.joined.then(() => this.#lanes.delete(lane));
    const idleMs = this.#limits.idleMs;
    socket.setTimeout(idleMs, () => {
      // A slow disk is not an idle lane.
      if (lane.isWriting) socket.setTimeout(idleMs);
      else lane.fail(new LongshoreError("StreamTorn", `lane: nothing moved for ${idleMs} ms`));
    });
    socket.write(renderStatus());
    lane.feed(rest);
  }

  #refuse(socket: TLSSocket, error: unknown): void {
    const refusal = refusalOf(error);
    this.#report(refusal ?? new LongshoreError("StreamTorn", "lane: it did not open", { cause: error }), socket);
    if (refusal === undefined) return void socket.destroy();
    socket.end(renderStatus(refusal));
    // What comes in meanwhile is thrown away; unread, it would reset the connection before the answer is read.
    socket.resume();
    void destroyAfter(socket, this.#deadline());
  }

  #deadline() {
    return { clock: this.#options.clock, timeoutMs: this.#limits.openingMs };
  }

  #report(error: LongshoreError, socket?: Socket): void {
    this.#options.onRefusal?.(error, socket?.remoteAddress);
  }
}

/** An 'error' without a listener would end the process; the 'close' after it is what is acted on. */
const closeFollows = () => {};

function secureOptions([cert = "", key = "", ...ca]: readonly string[]) {
  return { cert, key, ca, ...tlsVersion };
}

function isSame(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((text, index) => text === other[index]);
}
