// The file a lane reads from, on the lane's thread.
import { readSync } from "node:fs";
import { renderError, type SourceEnded } from "./lane-messages.ts";

/** Why the source cannot be read; the connection is not to blame. */
export class SourceError extends Error {
  constructor(cause: unknown) {
    super("cannot read the source", { cause });
  }
}

/** Fills `into` from `offset` of the file, at once. Throws {@link SourceError}. */
export function readWhole(fd: number, into: Uint8Array, offset: number): void {
  for (let done = 0; done < into.length; ) {
    const read = readSome(fd, into, done, offset);
    if (read === 0) throw endOfFile(offset + done, offset + into.length);
    done += read;
  }
}

function readSome(fd: number, into: Uint8Array, done: number, offset: number): number {
  try {
    return readSync(fd, into, done, into.length - done, offset + done);
  } catch (error) {
    throw new SourceError(error);
  }
}

export function endOfFile(end: number, wanted: number): SourceError {
  return new SourceError(new Error(`the file ends at ${end}, before ${wanted}`));
}

/** The last word of a thread that stopped for this reason, or came to its end. */
export function endedBy(error: unknown): SourceEnded {
  if (error === undefined) return { kind: "ended", isTaken: true };
  const isUnreadable = error instanceof SourceError;
  const cause = renderError(isUnreadable ? error.cause : error);
  return { kind: "ended", isTaken: false, error: cause, blame: isUnreadable ? "source" : undefined };
}
