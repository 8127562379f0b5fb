// The frame of a floor's process: it is told what to prepare, then to go, and says when it is done. It ends with its parent.
import type { FloorReply, FloorRequest, FloorTask } from "./messages.ts";

export interface Outcome {
  readonly bytesSent: number;
  readonly digests: readonly string[];
}

export interface Prepared {
  /** Where the target listens. */
  readonly port: number;
  go(): Promise<Outcome>;
}

/** Serves the parent's requests, one after the other. */
export function serve(prepare: (task: FloorTask, port: number | undefined) => Promise<Prepared> | Prepared): void {
  let prepared: Prepared | undefined;
  const answer = async (request: FloorRequest): Promise<FloorReply> => {
    if (request.kind === "prepare") {
      prepared = await prepare(request.task, request.port);
      return { kind: "ready", port: prepared.port };
    }
    if (prepared === undefined) throw new Error("nothing is prepared");
    return { kind: "done", ...(await prepared.go()) };
  };
  process.on("disconnect", () => process.exit(1));
  process.on("message", (request: FloorRequest) => {
    void answer(request)
      .catch((error): FloorReply => ({ kind: "failed", message: String(error?.stack ?? error) }))
      .then((reply) => process.send?.(reply));
  });
}
