import { once } from "node:events";
import { closeSync, readlinkSync, writeSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { afterEach, expect, test } from "@jest/globals";
import { duplicate } from "./socket-calls.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Both ends of a connection; the descriptor is that of the one who listens. */
async function connection() {
  const server = createServer({ pauseOnConnect: true }).listen(0, "127.0.0.1");
  cleanups.push(() => server.close());
  await once(server, "listening");
  const near = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [far] = await once(server, "connection");
  cleanups.push(() => near.destroy());
  return { near, far, fd: far._handle.fd as number };
}

test("a duplicate of a socket lives on when the socket is closed", async () => {
  const { near, far, fd } = await connection();
  const copy = duplicate(fd);
  expect(copy).not.toBe(fd);
  expect(readlinkSync(`/proc/self/fd/${copy}`)).toBe(readlinkSync(`/proc/self/fd/${fd}`));
  far.destroy();
  await once(far, "close");
  writeSync(copy, "still here");
  const [received] = await once(near, "data");
  expect(String(received)).toBe("still here");
  closeSync(copy);
  await once(near, "end");
});

test("what is not open has no duplicate", () => {
  expect(() => duplicate(1_000_000)).toThrow(/EBADF/);
});
