// A lane: one data connection from a source agent to a target agent, opened with a single-use ticket. Only payload
// travels on it; plan, digests and acknowledgements go over the control channel (src/wire/peer.ts).

/** Where a lane's payload goes at the target. */
export interface LaneSink {
  /**
   * Called before the payload of a frame is taken: throws `BadRequest` unless the range lies within one data extent of
   * the unit, as persisted in the plan. Nothing outside what it accepted is ever written.
   */
  accept(frame: Frame): void;
  /** Writes a part of an accepted frame. */
  write(unit: number, offset: number, data: Uint8Array): Promise<void>;
  /**
   * The lane of this very sink broke, whichever lane has its number by now; writes may still be in flight. Called at
   * most once, and never for a lane that `closeLanes` closed.
   */
  broken?(error: Error): void;
}

/** Announces `length` bytes of unit `unit` that belong at `offset` of the image. */
export interface Frame {
  readonly unit: number;
  readonly offset: number;
  readonly length: number;
}

/** What a ticket is bound to; another job, epoch, lane number or peer cannot use it. */
export interface LaneBinding {
  /** The migrated volume's key at the target; lanes are closed by it. */
  readonly owner: string;
  readonly epoch: number;
  readonly lane: number;
  /** The source cluster's UID, as its certificate says. */
  readonly peerClusterUid: string;
}

/** The target's side. */
export interface LaneServer {
  /** host:port that peers dial. */
  readonly address: string;
  /** A ticket, good for one connection within a minute. 32 random bytes in hex. */
  issue(binding: LaneBinding, sink: LaneSink): string;
  /** Revokes the owner's tickets, closes its lanes, and resolves when no write of theirs is in flight any more. */
  closeLanes(owner: string): Promise<void>;
  close(): Promise<void>;
}

/** The source's side: an open lane. Any error closes it for good; the job opens another. */
export interface Lane {
  /** Bytes put on the wire, frames included. */
  readonly bytesSent: number;
  /**
   * Resolves when the payload may be reused and there is room for more; the frame is on its way then, in order, and
   * leaves within milliseconds. At most 8 MiB. Rejects with `StreamTorn`, as does every later call.
   */
  send(frame: Frame, payload: Uint8Array): Promise<void>;
  /**
   * Ends the stream after what was sent; resolves when the target's sink has taken all of it. Rejects with `StreamTorn`
   * when the lane broke, before or now. A repeat gives the same outcome.
   */
  close(): Promise<void>;
  /** Breaks the connection at once. */
  destroy(reason: Error): void;
}

/** Lets bytes pass at a rate that others set, such as a token bucket that all lanes of a location share. */
export interface Pace {
  /** Resolves when `bytes` may be sent; rejects with the signal's reason. */
  take(bytes: number, signal: AbortSignal): Promise<void>;
}

export interface LaneTarget {
  readonly address: string;
  readonly ticket: string;
  readonly peerClusterUid: string;
  /** No limit unless given. */
  readonly pace?: Pace | undefined;
}

export interface LaneDialer {
  /** Resolves when the target has accepted the ticket. The signal ends the opening, and later breaks the lane. */
  open(to: LaneTarget, signal: AbortSignal): Promise<Lane>;
}
