// The source's side of tls lanes on the main thread: has a thread connect, makes sure who answers, and hands out the open lane.
import { X509Certificate } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { parseAddress } from "../domain/address.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Lane, LaneDialer, LaneTarget } from "./lane.ts";
import { isTicket, preambleBytes } from "./lane-codec.ts";
import { type LaneDialerLimits, laneDialerLimits, lateness, openingError } from "./lane-dialling.ts";
import { parseError } from "./lane-failure.ts";
import type { FromSource, SourceEnded, ToSource } from "./lane-messages.ts";
import { LaneSignals } from "./lane-signals.ts";
import type { LaneThreads, ThreadLease } from "./lane-threads.ts";
import { SourceLane } from "./source-lane.ts";
import type { Authorize, LaneCredentials } from "./tls-peer.ts";
import type { TlsSourceJob } from "./tls-source-thread.ts";

export interface TlsLaneDialerOptions {
  readonly credentials: LaneCredentials;
  /** PEM texts of the CAs that may vouch for agents of that cluster. */
  trust(peerClusterUid: string): readonly string[];
  readonly authorize: Authorize;
  readonly clock: Clock;
  /** Where its lanes run; several dialers share them. */
  readonly threads: LaneThreads;
  readonly limits?: Partial<LaneDialerLimits>;
}

/**
 * `open` throws `Unreachable`, `Untrusted` (the one who answers is not of the cluster meant), `TicketRefused`,
 * `Unauthenticated` (the target does not know us), `BadRequest`, or the signal's reason. Afterwards the signal breaks the lane.
 */
export function tlsLaneDialer(options: TlsLaneDialerOptions): LaneDialer {
  const limits = { ...laneDialerLimits, ...options.limits };
  return { open: (to, signal) => openLane(to, signal, { ...options, limits }) };
}

type Settings = TlsLaneDialerOptions & { readonly limits: LaneDialerLimits };

async function openLane(to: LaneTarget, signal: AbortSignal, settings: Settings): Promise<Lane> {
  signal.throwIfAborted();
  if (!isTicket(to.ticket)) throw new LongshoreError("BadRequest", `lane to ${to.address}: the ticket is malformed`);
  const signals = new LaneSignals();
  const job = jobFor(to, signals, settings);
  // Aborted by whatever ends the opening early; later it breaks the lane when the threads are ended.
  const revoked = new AbortController();
  const opened = new AbortController();
  const stop = AbortSignal.any([signal, revoked.signal, lateness(settings, opened.signal)]);
  try {
    const onRevoke = (reason: Error) => revoked.abort(reason);
    const lease = await settings.threads.run(job, { isBlocking: false, signal: stop, onRevoke });
    await accepted(lease, { to, stop, authorize: settings.authorize });
    signals.addSent(preambleBytes);
    const breaking = AbortSignal.any([signal, revoked.signal]);
    return new SourceLane({
      lease,
      signals,
      source: to.source,
      pace: to.pace,
      clock: settings.clock,
      signal: breaking,
    });
  } catch (error) {
    signal.throwIfAborted();
    throw openingError(to, error);
  } finally {
    opened.abort();
  }
}

function jobFor(to: LaneTarget, signals: LaneSignals, { credentials, trust, limits }: Settings): TlsSourceJob {
  const { cert, key } = credentials.current();
  return {
    role: "tlsSource",
    ...parseAddress(to.address),
    material: { cert, key, ca: [...trust(to.peerClusterUid)] },
    ticket: to.ticket,
    fd: to.source.fd,
    hasDigests: to.hasDigests,
    isPaced: to.pace !== undefined,
    idleMs: limits.idleMs,
    signals: signals.buffer,
  };
}

interface Opening {
  readonly to: LaneTarget;
  readonly stop: AbortSignal;
  readonly authorize: Authorize;
}

/** Resolves when the target accepts the ticket, which it is shown once we know who it is. Otherwise the thread is released. */
function accepted(lease: ThreadLease, { to, stop, authorize }: Opening): Promise<void> {
  const { port } = lease;
  return new Promise((resolve, reject) => {
    const post = (message: ToSource) => port.postMessage(message);
    const onStop = () => fail(stop.reason);
    let isGivenUp = false;
    const fail = (error: unknown) => {
      isGivenUp = true;
      post({ kind: "destroy" });
      reject(error);
    };
    const onMessage = (message: FromSource) => {
      if (message.kind === "peer") judge(message.chain);
      // Given up meanwhile, it is still to end.
      else if (message.kind === "opened" && !isGivenUp) end(resolve);
      else if (message.kind === "ended") onEnded(message);
    };
    const judge = (chain: readonly Uint8Array[]) => {
      try {
        assertPeer(chain, to, authorize);
        post({ kind: "proceed" });
      } catch (error) {
        fail(error);
      }
    };
    const onEnded = ({ error, blame }: SourceEnded) => {
      end(() => lease.release());
      const cause = error && parseError(error);
      reject(blame === "certificate" ? new LongshoreError("Untrusted", "its certificate", { cause }) : cause);
    };
    const onClose = () => onEnded({ kind: "ended", isTaken: false });
    const end = (then: () => void) => {
      stop.removeEventListener("abort", onStop);
      port.off("message", onMessage);
      port.off("close", onClose);
      then();
    };
    port.on("message", onMessage);
    port.on("close", onClose);
    stop.addEventListener("abort", onStop, { once: true });
    if (stop.aborted) onStop();
  });
}

function assertPeer(chain: readonly Uint8Array[], to: LaneTarget, authorize: Authorize): void {
  const peer = authorize(chain.map((der) => new X509Certificate(der)));
  if (peer?.clusterUid === to.peerClusterUid) return;
  const who = peer === undefined ? "no agent known here" : `of cluster ${peer.clusterUid}`;
  throw new LongshoreError("Untrusted", `the one who answers is ${who}, not of cluster ${to.peerClusterUid}`);
}
