// The source's side of kernel lanes on the main thread: connects, shows the ticket, and hands the connection to a thread. Plain TCP:
// see kernel-lane-server.ts for whom it is for.
import { closeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import type { Clock } from "../base/clock.ts";
import { parseAddress } from "../domain/address.ts";
import { LongshoreError } from "../domain/errors.ts";
import { hangUp } from "../native/socket-calls.ts";
import { adoptSocket } from "./adopted-socket.ts";
import type { KernelSourceJob } from "./kernel-source-thread.ts";
import type { Lane, LaneDialer, LaneTarget } from "./lane.ts";
import { isTicket, parseStatus, preambleBytes, renderPreamble } from "./lane-codec.ts";
import { type LaneDialerLimits, laneDialerLimits, lateness, openingError } from "./lane-dialling.ts";
import type { FromSource, ToSource } from "./lane-messages.ts";
import { LaneSignals } from "./lane-signals.ts";
import type { LaneThreads, ThreadLease } from "./lane-threads.ts";
import { SourceLane } from "./source-lane.ts";
import { keepAliveMs } from "./tls-peer.ts";

export interface KernelLaneDialerOptions {
  readonly clock: Clock;
  /** Where its lanes run, one on each thread; several dialers share them. */
  readonly threads: LaneThreads;
  readonly limits?: Partial<LaneDialerLimits>;
}

/**
 * Nobody proves who answers: {@link LaneTarget.peerClusterUid} is not looked at. `open` throws `Unreachable`, `TicketRefused`,
 * `BadRequest`, or the signal's reason. Afterwards the signal breaks the lane.
 */
export function kernelLaneDialer(options: KernelLaneDialerOptions): LaneDialer {
  const limits = { ...laneDialerLimits, ...options.limits };
  return { open: (to, signal) => openLane(to, signal, { ...options, limits }) };
}

type Settings = KernelLaneDialerOptions & { readonly limits: LaneDialerLimits };

async function openLane(to: LaneTarget, signal: AbortSignal, settings: Settings): Promise<Lane> {
  signal.throwIfAborted();
  if (!isTicket(to.ticket)) throw new LongshoreError("BadRequest", `lane to ${to.address}: the ticket is malformed`);
  const { clock, threads } = settings;
  const signals = new LaneSignals();
  const revoked = new AbortController();
  const opened = new AbortController();
  const stop = AbortSignal.any([signal, revoked.signal, lateness(settings, opened.signal)]);
  try {
    // The thread comes first: a target whose thread is taken for this lane must not wait for one here.
    const onRevoke = (reason: Error) => revoked.abort(reason);
    const lease = await threads.run(jobFor(to, signals, settings), { isBlocking: true, signal: stop, onRevoke });
    const socketFd = await connected(to, stop).catch((error) => {
      giveUp(lease, signals);
      throw error;
    });
    lease.port.postMessage({ kind: "connected", socketFd } satisfies ToSource);
    signals.ring();
    signals.addSent(preambleBytes);
    return new SourceLane({
      ...{ lease: closing(lease, socketFd), signals, source: to.source, pace: to.pace, clock },
      signal: AbortSignal.any([signal, revoked.signal]),
      interrupt: () => hangUp(socketFd),
    });
  } catch (error) {
    signal.throwIfAborted();
    throw openingError(to, error);
  } finally {
    opened.abort();
  }
}

function jobFor(to: LaneTarget, signals: LaneSignals, { limits }: Settings): KernelSourceJob {
  return {
    role: "kernelSource",
    fd: to.source.fd,
    hasDigests: to.hasDigests,
    isPaced: to.pace !== undefined,
    idleMs: limits.idleMs,
    signals: signals.buffer,
  };
}

/** Ends a thread that waits for its connection. */
function giveUp({ port, release }: ThreadLease, signals: LaneSignals): void {
  port.on("message", ({ kind }: FromSource) => {
    if (kind === "ended") release();
  });
  port.on("close", release);
  signals.stop();
}

/** Closes the connection with the thread's last word, and not before: its number may be used again at once. */
function closing({ port, release }: ThreadLease, socketFd: number): ThreadLease {
  return {
    port,
    release: () => {
      closeSync(socketFd);
      release();
    },
  };
}

/** A connection whose target has accepted the ticket. */
async function connected(to: LaneTarget, stop: AbortSignal): Promise<number> {
  stop.throwIfAborted();
  const socket = connect({
    ...parseAddress(to.address),
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveMs,
  });
  const abort = () => socket.destroy(stop.reason);
  stop.addEventListener("abort", abort, { once: true });
  try {
    socket.write(renderPreamble(to.ticket));
    await accepted(socket);
    const socketFd = adoptSocket(socket);
    if (socketFd === undefined) throw new Error("it was closed as soon as it was open");
    return socketFd;
  } catch (error) {
    socket.destroy();
    stop.throwIfAborted();
    throw error;
  } finally {
    stop.removeEventListener("abort", abort);
  }
}

/** Resolves when the target accepts the ticket; nothing more is read then. */
function accepted(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0);
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("it was closed without an answer")));
    socket.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      try {
        const status = parseStatus(received);
        if (status?.kind === "refused") reject(status.error);
        if (status?.kind !== "accepted") return;
        socket.pause();
        resolve();
      } catch (error) {
        reject(error);
      }
    });
  });
}
