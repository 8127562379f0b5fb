// A thread that reads extents of an open file and hashes them, one request at a time.
import { createHash } from "node:crypto";
import { readSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import type { WorkerAnswer } from "../base/worker-pool.ts";

/** What to hash: of `fd`, offset and length of each extent in turn, read through a buffer that suits direct reads. */
export interface DigestRequest {
  readonly fd: number;
  readonly extents: Float64Array;
  readonly buffer: SharedArrayBuffer;
  /** Where in the buffer the aligned part begins, and how long it is. */
  readonly start: number;
  readonly length: number;
}

function digest({ fd, extents, buffer, start, length }: DigestRequest): string {
  const hash = createHash("sha256");
  const whole = new Uint8Array(buffer, start, length);
  for (let index = 0; index < extents.length; index += 2) {
    let at = extents[index] as number;
    const end = at + (extents[index + 1] as number);
    while (at < end) {
      const bytesRead = readSync(fd, whole, 0, Math.min(length, end - at), at);
      if (bytesRead === 0) throw Object.assign(new Error(`the image ends before byte ${end}`), { code: "ENODATA" });
      hash.update(whole.subarray(0, bytesRead));
      at += bytesRead;
    }
  }
  return hash.digest("hex");
}

parentPort?.on("message", (request: DigestRequest) => parentPort?.postMessage(answer(request)));

function answer(request: DigestRequest): WorkerAnswer<string> {
  try {
    return { kind: "done", answer: digest(request) };
  } catch (error) {
    const { message, code, errno } = error as NodeJS.ErrnoException;
    return {
      kind: "failed",
      error: { message, ...(code !== undefined && { code }), ...(errno !== undefined && { errno }) },
    };
  }
}
