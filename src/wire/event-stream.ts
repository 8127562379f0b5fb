// Server-sent events, read: text in arbitrary pieces becomes events.

export interface ServerSentEvent {
  readonly event: string;
  readonly id: string | undefined;
  readonly data: string;
}

/** One event may not be longer than this, in characters: a stream without line ends must not fill the memory. */
export const eventCharactersMax = 8 << 20;

/** Yields whole events; comments (heartbeats) are dropped, and so is an event that the end of the text cuts off. */
export async function* parseEvents(text: AsyncIterable<string>): AsyncGenerator<ServerSentEvent> {
  let rest = "";
  let lines: string[] = [];
  for await (const piece of text) {
    const parts = (rest + piece).split("\n");
    rest = parts.pop() ?? "";
    if (rest.length > eventCharactersMax) throw new RangeError("an event is too long");
    for (const part of parts) {
      const line = part.endsWith("\r") ? part.slice(0, -1) : part;
      if (line !== "") lines.push(line);
      else {
        const event = eventOf(lines);
        lines = [];
        if (event) yield event;
      }
    }
  }
}

/** An event's text; `data` may not hold line ends, which JSON never does. */
export function renderEvent({ event, id, data }: ServerSentEvent): string {
  return `${id === undefined ? "" : `id: ${id}\n`}event: ${event}\ndata: ${data}\n\n`;
}

function eventOf(lines: readonly string[]): ServerSentEvent | undefined {
  const fields = new Map<string, string>();
  for (const line of lines) {
    const [, name = "", value = ""] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    fields.set(name, name === "data" && fields.has(name) ? `${fields.get(name)}\n${value}` : value);
  }
  const data = fields.get("data");
  return data === undefined ? undefined : { event: fields.get("event") ?? "message", id: fields.get("id"), data };
}
