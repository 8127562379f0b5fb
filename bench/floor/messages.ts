// What the benchmark says to the two processes of a floor, and what they answer.
import type { Range } from "../tool.ts";

/** The digest that the project verifies with: both sides of the hashing floors use the same. */
export const digestAlgorithm = "sha256";
/** How much is hashed, and made durable, at a time where it is. */
export const segmentBytes = 64 << 20;

export interface FloorFile {
  /** The volume at the source; the copy to be made at the target. */
  readonly path: string;
  /** At the target: the copy of the step before, of which the new one is a clone; none for a first copy. */
  readonly base: string | undefined;
  readonly sizeBytes: number;
  readonly ranges: readonly Range[];
}

export interface FloorTask {
  readonly transport: "kernel" | "tls";
  readonly isHashing: boolean;
  readonly files: readonly FloorFile[];
  /** Connections; with more than one, each side moves that many shares at once. Over TLS only. */
  readonly lanes: number;
  /** Certificate and key of both sides, and whom they trust; over TLS. */
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string } | undefined;
}

export type FloorRequest =
  | { readonly kind: "prepare"; readonly task: FloorTask; readonly port: number | undefined }
  | { readonly kind: "go" };

export type FloorReply =
  | { readonly kind: "ready"; readonly port: number }
  | { readonly kind: "done"; readonly bytesSent: number; readonly digests: readonly string[] }
  | { readonly kind: "failed"; readonly message: string };

/** A piece of one file, as it travels. */
export interface Piece extends Range {
  readonly file: number;
}

/** The task's bytes in order, in segments of at most {@link segmentBytes} that no range of another file shares. */
export function segmentsOf(files: readonly Pick<FloorFile, "ranges">[]): Piece[][] {
  const segments: Piece[][] = [];
  for (const [file, { ranges }] of files.entries()) {
    let room = 0;
    for (const range of ranges) {
      for (let done = 0; done < range.length; ) {
        if (room === 0) {
          segments.push([]);
          room = segmentBytes;
        }
        const length = Math.min(range.length - done, room);
        segments.at(-1)?.push({ file, offset: range.offset + done, length });
        done += length;
        room -= length;
      }
    }
  }
  return segments;
}

/** The segments that a lane moves. */
export function shareOf<T>(segments: readonly T[], lane: number, lanes: number): T[] {
  return segments.filter((_, index) => index % lanes === lane);
}
