// The source's side of tls lanes: connects, makes sure who answers, shows the ticket, and hands out the open lane.
import { connect, type TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Lane, LaneDialer, LaneTarget } from "./lane.ts";
import { isTicket, parseStatus, preambleBytes, renderPreamble } from "./lane-codec.ts";
import { LaneSender } from "./lane-sender.ts";
import { type Authorize, keepAliveMs, type LaneCredentials, parseAddress, peerChain, tlsVersion } from "./tls-peer.ts";

export interface TlsLaneDialerOptions {
  readonly credentials: LaneCredentials;
  /** PEM texts of the CAs that may vouch for agents of that cluster. */
  trust(peerClusterUid: string): readonly string[];
  readonly authorize: Authorize;
  readonly clock: Clock;
  readonly limits?: Partial<TlsLaneDialerLimits>;
}

export interface TlsLaneDialerLimits {
  /** From dialling to the target's answer to the ticket. */
  readonly openingMs: number;
  /** A lane breaks when what was sent does not move for so long. */
  readonly idleMs: number;
}

const defaultLimits: TlsLaneDialerLimits = { openingMs: 10_000, idleMs: 120_000 };

/**
 * `open` throws `Unreachable`, `Untrusted` (the one who answers is not of the cluster meant), `TicketRefused`,
 * `Unauthenticated` (the target does not know us), `BadRequest`, or the signal's reason. Afterwards the signal breaks the lane.
 */
export function tlsLaneDialer(options: TlsLaneDialerOptions): LaneDialer {
  const limits = { ...defaultLimits, ...options.limits };
  return { open: (to, signal) => openLane(to, signal, { ...options, limits }) };
}

type Settings = TlsLaneDialerOptions & { readonly limits: TlsLaneDialerLimits };

async function openLane(to: LaneTarget, signal: AbortSignal, settings: Settings): Promise<Lane> {
  signal.throwIfAborted();
  if (!isTicket(to.ticket)) throw new LongshoreError("BadRequest", `lane to ${to.address}: the ticket is malformed`);
  const socket = dial(to, settings);
  const abort = () => socket.destroy(new Error("it was aborted"));
  signal.addEventListener("abort", abort, { once: true });
  const opened = new AbortController();
  void breakWhenLate(socket, settings, opened.signal);
  try {
    await secured(socket);
    assertPeer(socket, to, settings);
    socket.write(renderPreamble(to.ticket));
    await accepted(socket);
    signal.throwIfAborted();
  } catch (error) {
    socket.destroy();
    signal.throwIfAborted();
    throw openingError(socket, to, error);
  } finally {
    opened.abort();
    signal.removeEventListener("abort", abort);
  }
  return laneOn(socket, { ...to, signal }, settings);
}

function dial(to: LaneTarget, { credentials, trust }: Settings): TLSSocket {
  const { host, port } = parseAddress(to.address);
  const { cert, key } = credentials.current();
  const socket = connect({
    ...{ host, port, cert, key, ca: [...trust(to.peerClusterUid)], ...tlsVersion },
    // Agents are known by the URI name of their certificates, which assertPeer checks; hosts and addresses change.
    checkServerIdentity: () => undefined,
  });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, keepAliveMs);
  // An 'error' without a listener would end the process; whoever waits for something listens as well.
  socket.on("error", () => {});
  return socket;
}

async function breakWhenLate(socket: TLSSocket, { clock, limits }: Settings, opened: AbortSignal): Promise<void> {
  try {
    await clock.sleep(limits.openingMs, opened);
  } catch {
    return; // It was opened, or failed, in time.
  }
  socket.destroy(new LongshoreError("Unreachable", `lane: no answer within ${limits.openingMs} ms`));
}

/** Resolves when the handshake is done and a CA of ours vouches for the other side. */
function secured(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("secureConnect", resolve);
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("it was closed within the handshake")));
  });
}

function assertPeer(socket: TLSSocket, to: LaneTarget, { authorize }: Settings): void {
  const peer = authorize(peerChain(socket));
  if (peer?.clusterUid === to.peerClusterUid) return;
  const who = peer === undefined ? "no agent known here" : `of cluster ${peer.clusterUid}`;
  throw new LongshoreError("Untrusted", `the one who answers is ${who}, not of cluster ${to.peerClusterUid}`);
}

/** Resolves when the target accepts the ticket; the stream is paused then. */
function accepted(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0);
    const onData = (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      try {
        const status = parseStatus(received);
        if (status === undefined) return;
        socket.off("data", onData);
        socket.pause();
        if (status.kind === "refused") reject(status.error);
        else resolve();
      } catch (error) {
        reject(error);
      }
    };
    socket.on("data", onData);
    socket.once("end", () => reject(new Error("it was closed without an answer")));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("it was closed without an answer")));
  });
}

function openingError(socket: TLSSocket, { address }: LaneTarget, error: unknown): LongshoreError {
  if (error instanceof LongshoreError) {
    return new LongshoreError(error.code, `lane to ${address}: ${error.message}`, { cause: error.cause });
  }
  const code = socket.authorizationError ? "Untrusted" : "Unreachable";
  return new LongshoreError(code, `lane to ${address}`, { cause: error });
}

function laneOn(socket: TLSSocket, to: LaneTarget & { signal: AbortSignal }, { clock, limits }: Settings): Lane {
  const lane = new LaneSender(socket, { clock, pace: to.pace, bytesSentBefore: preambleBytes });
  socket.setTimeout(limits.idleMs, () => {
    if (lane.isWaiting) lane.destroy(new Error(`nothing moved for ${limits.idleMs} ms`));
    else socket.setTimeout(limits.idleMs);
  });
  const abort = () => lane.destroy(to.signal.reason);
  to.signal.addEventListener("abort", abort, { once: true });
  socket.once("close", () => to.signal.removeEventListener("abort", abort));
  return lane;
}
