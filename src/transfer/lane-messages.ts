// What a lane's thread and the main thread say to each other. The main thread decides (who may open a lane, where a unit
// belongs, what may pass); the thread moves bytes. Each lane has a port of its own, and a few shared numbers beside it for
// what must not wait for its turn in a queue of messages.
import type { LaneExtent } from "./lane.ts";

/** Offset and length of each extent, one after the other: quicker to hand over than pairs. */
export type FlatExtents = Float64Array<ArrayBuffer>;

export function flatExtents(extents: readonly LaneExtent[]): FlatExtents {
  const flat = new Float64Array(2 * extents.length);
  for (const [index, [offset, length]] of extents.entries()) {
    flat[2 * index] = offset;
    flat[2 * index + 1] = length;
  }
  return flat;
}

// ---- the source's side ---------------------------------------------------------------------------------------------

/** To the thread of a source's lane. */
export type ToSource =
  /** The other side is who was meant: show the ticket. */
  | { readonly kind: "proceed" }
  /** This connection is open, and its ticket accepted. */
  | { readonly kind: "connected"; readonly socketFd: number }
  | { readonly kind: "send"; readonly unit: number; readonly payloadBytes: number; readonly extents: FlatExtents }
  /** So much more may be sent. */
  | { readonly kind: "credit"; readonly bytes: number }
  /** What was asked for by `read`. */
  | { readonly kind: "bytes"; readonly data: Uint8Array }
  /** End the stream after what was sent. */
  | { readonly kind: "close" }
  | { readonly kind: "destroy" };

/** From the thread of a source's lane. */
export type FromSource =
  /** Certificates of the other side, in DER, leaf first. */
  | { readonly kind: "peer"; readonly chain: readonly Uint8Array[] }
  | { readonly kind: "opened" }
  /** The next unit was read whole and is on its way, with the digest of its payload where one was asked for. */
  | { readonly kind: "sent"; readonly digest: string | undefined }
  | { readonly kind: "credit"; readonly bytes: number }
  | { readonly kind: "read"; readonly offset: number; readonly length: number }
  | SourceEnded;

/** The last word: the thread uses neither the source's file nor the connection any more. */
export interface SourceEnded {
  readonly kind: "ended";
  /** Whether the target said, after the end, that all was taken. */
  readonly isTaken: boolean;
  readonly error?: SentError | undefined;
  /** What the error is about, when it is not the connection. */
  readonly blame?: "source" | "certificate" | undefined;
}

// ---- the target's side ---------------------------------------------------------------------------------------------

/** To the thread of a target's lane. */
export type ToTarget =
  /** The peer may show its ticket. */
  | { readonly kind: "proceed" }
  /** Answer this status, and hang up. */
  | { readonly kind: "refuse"; readonly status: Uint8Array }
  /**
   * The ticket is good: write to this file, or, when it is negative, hand the payload over. With the connection that waits for
   * the answer, where the thread does not have it already.
   */
  | { readonly kind: "accept"; readonly fd: number; readonly socketFd?: number }
  /** Where a unit that was asked about belongs; in the order of the questions. */
  | { readonly kind: "extents"; readonly extents: FlatExtents }
  /** The sink knows of all that arrived: the sender may be told that all was taken. */
  | { readonly kind: "finish" }
  /** So many bytes that were handed over are written. */
  | { readonly kind: "written"; readonly bytes: number }
  | { readonly kind: "stop" };

/** From the thread of a target's lane. */
export type FromTarget =
  | { readonly kind: "peer"; readonly chain: readonly Uint8Array[] }
  | { readonly kind: "ticket"; readonly ticket: string }
  /** It did not become a lane. */
  | { readonly kind: "refused"; readonly error: SentError }
  /** Where does this unit belong? */
  | { readonly kind: "begin"; readonly unit: number; readonly payloadBytes: number }
  | { readonly kind: "write"; readonly unit: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: "arrived"; readonly unit: number }
  /** The stream has ended, and all of it is written. */
  | { readonly kind: "finished" }
  /** The thread does not use the staging file any more; with an error when the lane broke. */
  | { readonly kind: "ended"; readonly error?: SentError | undefined }
  /** The last word: the connection is closed. */
  | { readonly kind: "closed" };

// ---- errors --------------------------------------------------------------------------------------------------------

/** An error on its way between threads: a copy made by the runtime would lose what our errors carry. */
export interface SentError {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly errno?: number;
  readonly syscall?: string;
  readonly cause?: SentError;
}

export function renderError(error: unknown): SentError {
  if (!Error.isError(error)) return { name: "Error", message: String(error) };
  const { name, message, code, errno, syscall, cause } = error as NodeJS.ErrnoException;
  return {
    ...{ name, message },
    ...(code === undefined ? {} : { code: String(code) }),
    ...(errno === undefined ? {} : { errno }),
    ...(syscall === undefined ? {} : { syscall }),
    ...(cause === undefined ? {} : { cause: renderError(cause) }),
  };
}
