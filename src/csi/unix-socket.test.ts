import { once } from "node:events";
import { existsSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { clearStaleSocket, socketPathOf } from "./unix-socket.ts";

let folder: TemporaryFolder;
let path: string;

beforeEach(async () => {
  folder = await temporaryFolder("socket");
  path = join(folder.path, "csi.sock");
});

afterEach(() => folder.remove());

test.each([
  ["unix:///csi/csi.sock", "/csi/csi.sock"],
  ["unix:/csi/csi.sock", "/csi/csi.sock"],
])("%s is the socket %s", (endpoint, socket) => {
  expect(socketPathOf(endpoint)).toBe(socket);
});

test.each([
  ["/csi/csi.sock", "write it as in unix:///csi/csi.sock"],
  ["unix:csi.sock", "write it as in"],
  ["unix://", "write it as in"],
  ["tcp://0.0.0.0:10000", "write it as in"],
  ["", "write it as in"],
  [`unix:///${"a".repeat(107)}`, "has 108 bytes"],
])("%s is refused", (endpoint, message) => {
  expect(() => socketPathOf(endpoint)).toThrow(
    expect.objectContaining({ code: "BadRequest", message: expect.stringContaining(message) }),
  );
});

test("where nothing is, nothing is removed", async () => {
  await clearStaleSocket(path);
  await expect(clearStaleSocket(join(path, "below", "a", "file"))).resolves.toBeUndefined();
});

test("a socket that a process serves is left alone", async () => {
  const server = createServer().listen(path);
  await once(server, "listening");
  await expect(clearStaleSocket(path)).rejects.toMatchObject({ code: "InUse" });
  expect(existsSync(path)).toBe(true);
  server.close();
  await once(server, "close");
});

test("a socket that its process has left behind is removed", async () => {
  const server = createServer().listen(path);
  await once(server, "listening");
  // As after SIGKILL: the socket stays when its server goes.
  await rename(path, `${path}.left`);
  server.close();
  await once(server, "close");
  await rename(`${path}.left`, path);
  await clearStaleSocket(path);
  expect(existsSync(path)).toBe(false);
});

test("what is no socket is left alone", async () => {
  await writeFile(path, "data");
  await expect(clearStaleSocket(path)).rejects.toMatchObject({ code: "BadRequest" });
  expect(existsSync(path)).toBe(true);
});
