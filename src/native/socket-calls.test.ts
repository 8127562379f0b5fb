import { once } from "node:events";
import * as fs from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import {
  duplicate,
  endSending,
  hangUp,
  isQuiet,
  makeBlocking,
  openPipe,
  receive,
  sendFromFile,
  sendSome,
  spliceIn,
  spliceOut,
} from "./socket-calls.ts";

const notOpen = 1_000_000;
let folder: TemporaryFolder;
beforeAll(async () => {
  folder = await temporaryFolder("sockets");
});
afterAll(async () => {
  await folder.remove();
});
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Both ends of a connection, as Node has them. */
async function sockets() {
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(0, "127.0.0.1");
  cleanups.push(() => server.close());
  await once(server, "listening");
  const near = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1", allowHalfOpen: true });
  // Which of the two is heard of first is up to the kernel.
  const [[far]] = await Promise.all([once(server, "connection"), once(near, "connect")]);
  near.on("error", () => {});
  cleanups.push(() => near.destroy());
  return { near, far };
}

/** Longer than a busy kernel takes to bring from one end to the other what was sent. */
const ampleMs = 60_000;

/** Both ends as descriptors of blocking sockets, which Node knows nothing of. */
async function descriptors(timeoutMs = ampleMs) {
  const { near, far } = await sockets();
  const ends = [near, far].map((socket) => {
    const fd = duplicate(socket._handle.fd);
    socket.destroy();
    makeBlocking(fd, timeoutMs);
    cleanups.push(() => fs.closeSync(fd));
    return fd;
  });
  return [ends[0] ?? -1, ends[1] ?? -1] as const;
}

async function untilHeard(fd: number): Promise<void> {
  while (isQuiet(fd)) await new Promise((resolve) => setImmediate(resolve));
}

function fileWith(content: Uint8Array): number {
  const path = join(folder.path, `file-${cleanups.length}`);
  fs.writeFileSync(path, content);
  const fd = fs.openSync(path, "r+");
  cleanups.push(() => fs.closeSync(fd));
  return fd;
}

function contentOf(fd: number): Buffer {
  const content = Buffer.alloc(fs.fstatSync(fd).size);
  fs.readSync(fd, content, 0, content.length, 0);
  return content;
}

test("a duplicate of a socket lives on when the socket is closed", async () => {
  const { near, far } = await sockets();
  const { fd } = far._handle;
  const copy = duplicate(fd);
  expect(copy).not.toBe(fd);
  expect(fs.readlinkSync(`/proc/self/fd/${copy}`)).toBe(fs.readlinkSync(`/proc/self/fd/${fd}`));
  far.destroy();
  await once(far, "close");
  fs.writeSync(copy, "still here");
  const [received] = await once(near, "data");
  expect(String(received)).toBe("still here");
  fs.closeSync(copy);
  await once(near, "end");
});

test("each call on what is not open says so", () => {
  const pipe = { readFd: notOpen, writeFd: notOpen };
  const range = { offset: 0, length: 1 };
  const calls = [
    () => duplicate(notOpen),
    () => makeBlocking(notOpen, 10),
    () => hangUp(notOpen),
    () => endSending(notOpen),
    () => receive(notOpen, Buffer.alloc(1)),
    () => isQuiet(notOpen),
    () => sendSome(notOpen, Buffer.alloc(1), { more: false }),
    () => sendFromFile(notOpen, notOpen, range),
    () => spliceIn(notOpen, pipe, 1),
    () => spliceOut(pipe, notOpen, range),
  ];
  for (const call of calls) expect(call).toThrow(/^EBADF: /);
});

describe("a blocking socket", () => {
  test("receives what was sent, as far as there is room for it, and then its end", async () => {
    const [near, far] = await descriptors();
    expect(sendSome(near, Buffer.from("hello, world"), { more: false })).toBe(12);
    const buffer = Buffer.alloc(8);
    expect(receive(far, buffer.subarray(2, 7))).toBe(5);
    expect(buffer.toString()).toBe("\0\0hello\0");
    expect(receive(far, buffer)).toBe(7);
    expect(buffer.toString("utf8", 0, 7)).toBe(", world");
    endSending(near);
    expect(receive(far, buffer)).toBe(0);
    expect(sendSome(far, Buffer.from("answer"), { more: false })).toBe(6);
    expect(receive(near, buffer)).toBe(6);
  });

  test("waits for no longer than it was told", async () => {
    const [near, far] = await descriptors(20);
    expect(receive(far, Buffer.alloc(1))).toBeUndefined();
    const chunk = Buffer.alloc(1 << 20);
    let sent: number | undefined;
    do sent = sendSome(near, chunk, { more: false });
    while (sent !== undefined);
    const fd = fileWith(Buffer.alloc(1 << 20));
    do sent = sendFromFile(near, fd, { offset: 0, length: 1 << 20 });
    while (sent !== undefined);
  });

  test("is quiet while nothing comes, and neither when something did nor when it ended", async () => {
    const [near, far] = await descriptors();
    expect(isQuiet(far)).toBe(true);
    sendSome(near, Buffer.from("x"), { more: false });
    await untilHeard(far);
    expect(receive(far, Buffer.alloc(1))).toBe(1);
    expect(isQuiet(far)).toBe(true);
    endSending(near);
    await untilHeard(far);
  });

  test("that is hung up gives back at once who waits on it in another thread, and takes nothing more", async () => {
    const [near, far] = await descriptors();
    const waiter = new Worker(
      `const { workerData, parentPort } = require("node:worker_threads");
       import(workerData.module).then(({ receive }) => {
         parentPort.postMessage("waiting");
         parentPort.postMessage(receive(workerData.fd, Buffer.alloc(1)));
       });`,
      { eval: true, workerData: { module: join(import.meta.dirname, "socket-calls.ts"), fd: far } },
    );
    expect((await once(waiter, "message"))[0]).toBe("waiting");
    // Whether it waits already or is just about to, it comes back.
    hangUp(far);
    expect((await once(waiter, "message"))[0]).toBe(0);
    expect(() => sendSome(far, Buffer.from("x"), { more: false })).toThrow(/^EPIPE: /);
    expect(receive(near, Buffer.alloc(1))).toBe(0);
    hangUp(far);
    await waiter.terminate();
  });

  test("that the other side has reset can be hung up as well", async () => {
    const { near, far } = await sockets();
    const fd = duplicate(far._handle.fd);
    cleanups.push(() => fs.closeSync(fd));
    far.destroy();
    makeBlocking(fd, ampleMs);
    near.resetAndDestroy();
    expect(() => receive(fd, Buffer.alloc(1))).toThrow(/^ECONNRESET: /);
    hangUp(fd);
  });

  test("sends from any place of a file, and nothing past its end", async () => {
    const [near, far] = await descriptors();
    const fd = fileWith(Buffer.from("0123456789"));
    expect(sendSome(near, Buffer.from("head "), { more: true })).toBe(5);
    expect(sendFromFile(near, fd, { offset: 3, length: 4 })).toBe(4);
    expect(sendFromFile(near, fd, { offset: 8, length: 100 })).toBe(2);
    expect(sendFromFile(near, fd, { offset: 10, length: 1 })).toBe(0);
    endSending(near);
    const buffer = Buffer.alloc(100);
    let received = 0;
    for (let more = receive(far, buffer); more; more = receive(far, buffer.subarray(received))) received += more;
    expect(buffer.toString("utf8", 0, received)).toBe("head 345689");
  });
});

test("an offset past 32 bits reaches the kernel whole", async () => {
  const [near, far] = await descriptors();
  const fd = fileWith(Buffer.alloc(0));
  const offset = 2 ** 40 + 5;
  fs.ftruncateSync(fd, offset);
  fs.writeSync(fd, "far away", 0, "utf8");
  fs.writeSync(fd, Buffer.from("far away"), 0, 8, offset);
  expect(sendFromFile(near, fd, { offset, length: 100 })).toBe(8);
  const pipe = openPipe(1 << 20);
  expect(spliceIn(far, pipe, 100)).toBe(8);
  expect(spliceOut(pipe, fd, { offset: offset + 100, length: 8 })).toBe(8);
  const copied = Buffer.alloc(8);
  fs.readSync(fd, copied, 0, 8, offset + 100);
  expect(copied.toString()).toBe("far away");
  fs.closeSync(pipe.readFd);
  fs.closeSync(pipe.writeFd);
});

describe("a pipe", () => {
  test("takes from a socket and gives to a file, at its place, as much as is asked for", async () => {
    const [near, far] = await descriptors();
    const pipe = openPipe(1 << 20);
    const fd = fileWith(Buffer.from("----------"));
    sendSome(near, Buffer.from("abcdef"), { more: false });
    expect(spliceIn(far, pipe, 4)).toBe(4);
    expect(spliceOut(pipe, fd, { offset: 2, length: 3 })).toBe(3);
    expect(spliceOut(pipe, fd, { offset: 7, length: 1 })).toBe(1);
    expect(contentOf(fd).toString()).toBe("--abc--d--");
    expect(spliceIn(far, pipe, 100)).toBe(2);
    makeBlocking(far, 20);
    expect(spliceIn(far, pipe, 100)).toBeUndefined();
    makeBlocking(far, ampleMs);
    endSending(near);
    expect(spliceIn(far, pipe, 100)).toBe(0);
    fs.closeSync(pipe.readFd);
    fs.closeSync(pipe.writeFd);
  });

  test("says why it cannot give", async () => {
    const [near, far] = await descriptors();
    const pipe = openPipe(1 << 20);
    sendSome(near, Buffer.from("abcdef"), { more: false });
    spliceIn(far, pipe, 6);
    const readOnly = fs.openSync("/dev/null", "r");
    expect(() => spliceOut(pipe, readOnly, { offset: 0, length: 6 })).toThrow(/^EBADF: /);
    for (const open of [readOnly, pipe.readFd, pipe.writeFd]) fs.closeSync(open);
  });

  test("holds what it was asked to hold, and is closed in programs that are started", () => {
    const pipe = openPipe(1 << 20);
    const chunk = Buffer.alloc(1 << 20);
    expect(fs.writeSync(pipe.writeFd, chunk)).toBe(chunk.length);
    for (const fd of [pipe.readFd, pipe.writeFd]) {
      const [, flags = ""] = /^flags:\s+([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")) ?? [];
      expect(Number.parseInt(flags, 8) & 0o2000000).not.toBe(0);
      fs.closeSync(fd);
    }
  });
});

test("each thread has its own errno, however many call at once", async () => {
  const script = `const { workerData, parentPort } = require("node:worker_threads");
     import(workerData.module).then(({ receive, duplicate }) => {
       const codes = new Set();
       for (let round = 0; round < 2000; round++) {
         try { workerData.isPipe ? receive(workerData.fd, Buffer.alloc(1)) : duplicate(1000000); }
         catch (error) { codes.add(error.code); }
       }
       parentPort.postMessage([...codes]);
     });`;
  const pipe = openPipe(4096);
  const answers = await Promise.all(
    [true, false, true, false].map(async (isPipe) => {
      const workerData = { module: join(import.meta.dirname, "socket-calls.ts"), fd: pipe.readFd, isPipe };
      const worker = new Worker(script, { eval: true, workerData });
      const [codes] = await once(worker, "message");
      await worker.terminate();
      return codes;
    }),
  );
  expect(answers).toEqual([["ENOTSOCK"], ["EBADF"], ["ENOTSOCK"], ["EBADF"]]);
  fs.closeSync(pipe.readFd);
  fs.closeSync(pipe.writeFd);
});
