// A lane: one data connection from a source agent to a target agent, opened with a single-use ticket. Only payload
// travels on it; plan, digests and acknowledgements go over the control channel (src/wire/peer.ts). What travels are units:
// both sides know from the plan where a unit's bytes belong, so none of that is said on the wire.

/** Bytes [offset, offset + length) of an image. */
export type LaneExtent = readonly [offset: number, length: number];

/** A unit's data extents, ascending; its payload is their bytes, one after the other. At most {@link unitPayloadBytesMax}. */
export interface LaneUnit {
  readonly index: number;
  readonly extents: readonly LaneExtent[];
}

/** No unit's payload is longer; it equals the greatest unit of a plan. */
export const unitPayloadBytesMax = 8 * 1024 * 1024;

/** What a lane reads from: a sealed point, held open until the lane is closed. */
export interface LaneSource {
  /** Negative where there is no file, as in a simulation; then `read` is what counts. */
  readonly fd: number;
  /** Fills `into` from `offset`; throws when the range leaves the image. */
  read(offset: number, into: Uint8Array): Promise<void>;
}

/** Where a lane's payload goes at the target. */
export interface LaneSink {
  /** The staging image, open for writing until the lanes of its owner are closed; negative where there is no file. */
  readonly fd: number;
  /**
   * Called before a unit's payload is taken, in the order of arrival: answers the unit's data extents, as the persisted plan
   * has them. Throws `BadRequest` for a unit that is not planned, has no data, is stored, or is under way. Nothing outside
   * the extents it answered is ever written.
   */
  begin(unit: number): readonly LaneExtent[];
  /** Writes a part of a unit that has begun, for lanes that hold payload in memory. Throws `DiskFull` and the like. */
  write(unit: number, offset: number, data: Uint8Array): Promise<void>;
  /** Every byte of the unit has been written, though not synced. */
  arrived(unit: number): void;
  /**
   * The lane of this very sink broke, whichever lane has its number by now; writes may still be in flight. Called at
   * most once, and never for a lane that `closeLanes` closed.
   */
  broken?(error: Error): void;
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
  /** Bytes put on the wire so far, headers included; it grows while a unit is being sent. */
  readonly bytesSent: number;
  /**
   * Sends a unit, after those asked for before: resolves when all of it has been read from the source and is on its way, with
   * the SHA-256 (hex) of its payload, or `undefined` when the lane was opened without digests. Rejects with `StreamTorn`, as
   * does every later call, or with why the source cannot be read.
   */
  send(unit: LaneUnit): Promise<string | undefined>;
  /**
   * Ends the stream after what was sent; resolves when all of it is written at the target. Rejects with `StreamTorn` when
   * the lane broke, before or now. A repeat gives the same outcome.
   */
  close(): Promise<void>;
  /** Breaks the connection at once; resolves when nothing reads from the source any more. */
  destroy(reason: Error): Promise<void>;
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
  readonly source: LaneSource;
  /** Whether {@link Lane.send} answers digests. */
  readonly hasDigests: boolean;
  /** No limit unless given. */
  readonly pace?: Pace | undefined;
}

export interface LaneDialer {
  /** Resolves when the target has accepted the ticket. The signal ends the opening, and later breaks the lane. */
  open(to: LaneTarget, signal: AbortSignal): Promise<Lane>;
}
