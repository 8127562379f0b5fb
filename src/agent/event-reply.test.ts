import { createServer, get, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "@jest/globals";
import { writeEvents } from "./event-reply.ts";

let server: Server;
let tick: () => void = () => {};
const stop = new AbortController();

/** Sleeps until a test says so. */
const clock = {
  nowMs: () => 0,
  monotonicMs: () => 0,
  sleep: (_ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      tick = resolve;
      signal?.addEventListener("abort", () => reject(signal.reason));
    }),
};

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

async function open(events: AsyncIterable<unknown>, signal = new AbortController().signal): Promise<IncomingMessage> {
  server = createServer((_request, response) => {
    const reply = { name: "thing", events, idOf: String, problemOf: (error: unknown) => ({ code: String(error) }) };
    writeEvents(response, reply, clock, signal).catch(() => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve, reject) => get({ port, agent: false }, resolve).on("error", reject));
}

/** Everything up to and with `end`. */
function heard(response: IncomingMessage, end: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    response.on("data", (part: Buffer) => {
      text += part.toString("utf8");
      if (text.includes(end)) resolve(text);
    });
    response.on("end", () => reject(new Error(`ended after: ${text}`)));
  });
}

test("events over are said to be over", async () => {
  const response = await open(
    (async function* () {
      yield 1;
      yield 2;
    })(),
  );
  expect(response.headers["content-type"]).toBe("text/event-stream");
  expect(await heard(response, "event: end\ndata: {}\n\n")).toContain(
    "id: 1\nevent: thing\ndata: 1\n\nid: 2\nevent: thing\ndata: 2\n\n",
  );
});

test("events that fail say why", async () => {
  const response = await open(
    (async function* () {
      yield 1;
      throw "Trouble";
    })(),
  );
  const text = await heard(response, "Trouble");
  expect(text).toContain('event: problem\ndata: {"code":"Trouble"}\n\n');
  expect(text).not.toContain("event: end");
});

test("while nothing happens, heartbeats are sent", async () => {
  const response = await open({ [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) });
  await heard(response, "retry: 1000");
  const first = heard(response, ": still here");
  tick();
  await first;
  const second = heard(response, ": still here");
  tick();
  await second;
});

test("a stream that is stopped neither ends well nor fails: its reader comes again", async () => {
  const response = await open(
    (async function* () {
      yield 1;
      await new Promise((resolve) => stop.signal.addEventListener("abort", resolve));
    })(),
    stop.signal,
  );
  let text = await heard(response, "data: 1");
  response.on("data", (part: Buffer) => {
    text += part.toString("utf8");
  });
  const over = new Promise((resolve) => response.once("close", resolve));
  response.removeAllListeners("end");
  stop.abort();
  await over;
  expect(text).not.toMatch(/event: (end|problem)/);
});
