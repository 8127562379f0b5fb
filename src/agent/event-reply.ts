// Server-sent events, written: at the pace of the reader, with heartbeats, until the reader or the server goes.
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { Clock } from "../base/clock.ts";
import { renderEvent } from "../wire/event-stream.ts";

export interface EventReply {
  readonly name: string;
  readonly events: AsyncIterable<unknown>;
  /** The problem document that tells the reader why the stream ends early. */
  problemOf(error: unknown): unknown;
  idOf(event: never): string;
}

/** Comments this often keep connections open, and let a reader notice that its server is gone. */
const heartbeatMs = 15_000;

/**
 * Writes the whole stream. `end` is sent when the events are over, `problem` when they fail, and neither when `signal`
 * aborts: a reader then comes again, from the last id it saw.
 */
export async function writeEvents(response: ServerResponse, reply: EventReply, clock: Clock, signal: AbortSignal) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store", connection: "close" });
  response.write("retry: 1000\n\n");
  const over = new AbortController();
  const beating = beat(response, clock, AbortSignal.any([signal, over.signal]));
  try {
    await writeAll(response, reply, signal);
    if (!signal.aborted) response.write(renderEvent({ event: "end", id: undefined, data: "{}" }));
  } catch (error) {
    if (signal.aborted) return;
    const data = JSON.stringify(reply.problemOf(error));
    response.write(renderEvent({ event: "problem", id: undefined, data }));
    throw error;
  } finally {
    over.abort();
    await beating;
    response.end();
  }
}

async function writeAll(response: ServerResponse, { name, events, idOf }: EventReply, signal: AbortSignal) {
  for await (const event of events) {
    if (signal.aborted) return;
    const text = renderEvent({ event: name, id: idOf(event as never), data: JSON.stringify(event) });
    // The rest of the events waits in their source, not here, while the reader is slow.
    if (!response.write(text)) await once(response, "drain", { signal });
  }
}

async function beat(response: ServerResponse, clock: Clock, signal: AbortSignal): Promise<void> {
  try {
    for (;;) {
      await clock.sleep(heartbeatMs, signal);
      if (!response.writableNeedDrain) response.write(": still here\n\n");
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
