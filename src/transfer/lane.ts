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
  /** Resolves when the frame was handed to the kernel and there is room for more. Rejects with `StreamTorn`. */
  send(frame: Frame, payload: Uint8Array): Promise<void>;
  /** Ends the stream after what was sent; resolves when closed. */
  close(): Promise<void>;
  /** Breaks the connection at once. */
  destroy(reason: Error): void;
}

export interface LaneDialer {
  open(to: { address: string; ticket: string; peerClusterUid: string }, signal: AbortSignal): Promise<Lane>;
}
