// The path that a driver's socket lies at: read from an endpoint, and made free of what a process that is gone left there.
import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { errnoOf, unlessErrno } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";

/** What the kernel takes, without the closing nought. */
const pathBytesMax = 107;

/** The path of `unix:///csi/csi.sock`. Throws `BadRequest` for any other form, and for what is too long for the kernel. */
export function socketPathOf(endpoint: string): string {
  const [, path] = /^unix:(?:\/\/)?(\/[^/\0][^\0]*)$/.exec(endpoint) ?? [];
  if (path === undefined) {
    throw new LongshoreError("BadRequest", `"${endpoint}" is not a socket: write it as in unix:///csi/csi.sock`);
  }
  const bytes = Buffer.byteLength(path);
  if (bytes <= pathBytesMax) return path;
  throw new LongshoreError("BadRequest", `${path} has ${bytes} bytes; a socket's path has at most ${pathBytesMax}`);
}

/**
 * Removes a socket that nobody serves any more. Throws `InUse` when somebody does, and `BadRequest` when what is there is no
 * socket; both change nothing.
 */
export async function clearStaleSocket(path: string): Promise<void> {
  const found = await statsOf(path);
  if (found === undefined) return;
  if (!found.isSocket()) throw new LongshoreError("BadRequest", `${path} is there, and is no socket; remove it first`);
  if (await isServed(path)) throw new LongshoreError("InUse", `another process serves ${path}; stop it first`);
  await unlessErrno(["ENOENT"], () => unlink(path));
}

async function statsOf(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw new LongshoreError("BadRequest", `cannot look for a socket at ${path}`, { cause: error });
  }
}

/** Whether somebody takes connections there. */
export function isServed(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error) => {
      const errno = errnoOf(error);
      // Nobody listens, or it vanished meanwhile; a queue that is full is somebody's.
      if (errno === "ECONNREFUSED" || errno === "ENOENT") resolve(false);
      else if (errno === "EAGAIN") resolve(true);
      else reject(error);
    });
  });
}
