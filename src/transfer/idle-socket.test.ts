import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { whenIdle } from "./idle-socket.ts";

let server: Server;
let socket: Socket;
beforeEach(async () => {
  server = createServer((peer) => void peer.on("error", () => {}).resume()).listen(0, "127.0.0.1");
  await once(server, "listening");
  socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  await once(socket, "connect");
});
afterEach(() => {
  socket.destroy();
  server.close();
});

test("a connection on which nothing moves is idle, also after there was a reason for it several times", async () => {
  let looks = 0;
  const idle = new Promise<void>((resolve) => whenIdle(socket, 30, () => ++looks <= 3, resolve));
  await idle;
  expect(looks).toBe(4);
});
