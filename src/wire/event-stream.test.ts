import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { eventCharactersMax, parseEvents, renderEvent, type ServerSentEvent } from "./event-stream.ts";

async function* pieces(...texts: string[]): AsyncGenerator<string> {
  yield* texts;
}

async function all(...texts: string[]): Promise<ServerSentEvent[]> {
  const events: ServerSentEvent[] = [];
  for await (const event of parseEvents(pieces(...texts))) events.push(event);
  return events;
}

test.each([
  // what, text, events as "event id data"
  ["one event", "id: 1\nevent: change\ndata: {}\n\n", ["change 1 {}"]],
  ["two events", "data: a\n\ndata: b\n\n", ["message - a", "message - b"]],
  ["a comment before", ": still here\n\ndata: a\n\n", ["message - a"]],
  ["a comment within", "event: x\n: hm\ndata: a\n\n", ["x - a"]],
  ["data of two lines", "data: a\ndata: b\n\n", ["message - a\nb"]],
  ["no space after the colon", "data:a\n\n", ["message - a"]],
  ["carriage returns", "id: 1\r\ndata: a\r\n\r\n", ["message 1 a"]],
  ["an event without data", "event: x\n\n", []],
  ["an event cut off by the end", "data: a\n\ndata: b\n", ["message - a"]],
  ["a colon in the data", 'data: {"a":"b: c"}\n\n', ['message - {"a":"b: c"}']],
])("%s", async (_, text, events) => {
  const shown = (await all(text)).map(({ event, id, data }) => `${event} ${id ?? "-"} ${data}`);
  expect(shown).toEqual(events);
});

test("what was rendered is read again, however the text is cut into pieces", async () => {
  const events = fc.array(
    fc.record({
      event: fc.constantFrom("change", "job"),
      id: fc.option(fc.nat().map(String), { nil: undefined }),
      data: fc.json(),
    }),
  );
  await fc.assert(
    fc.asyncProperty(events, fc.array(fc.nat(40), { minLength: 1 }), async (sent, cuts) => {
      const text = sent.map(renderEvent).join("");
      const parts: string[] = [];
      for (let at = 0, turn = 0; at < text.length; turn++) {
        const length = (cuts[turn % cuts.length] ?? 0) + 1;
        parts.push(text.slice(at, at + length));
        at += length;
      }
      expect(await all(...parts)).toEqual(sent);
    }),
  );
});

test("a line without end is refused before it fills the memory", async () => {
  const piece = "x".repeat(1 << 20);
  const endless = Array.from({ length: eventCharactersMax / piece.length + 2 }, () => piece);
  await expect(all(...endless)).rejects.toThrow("too long");
});
