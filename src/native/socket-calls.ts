// The system calls on sockets and pipes that Node.js does not offer, for threads that may block. A wrong signature is a crash, so
// each has a test of its own. Linux only; failures are SystemErrors, as in file-calls.ts.
import koffi from "koffi";
import { systemError } from "../base/system-error.ts";
import { checked, libc } from "./libc.ts";

const fcntlNumber = libc.func("fcntl", "int", ["int", "int", "int"]);
const setsockopt = libc.func("setsockopt", "int", ["int", "int", "int", "void *", "uint32_t"]);
const shutdownSocket = libc.func("shutdown", "int", ["int", "int"]);
const recv = libc.func("recv", "int64_t", ["int", "void *", "size_t", "int"]);
const send = libc.func("send", "int64_t", ["int", "void *", "size_t", "int"]);
const sendfile = libc.func("sendfile", "int64_t", ["int", "int", "void *", "size_t"]);
const pipe2 = libc.func("pipe2", "int", ["void *", "int"]);
const splice = libc.func("splice", "int64_t", ["int", "void *", "int", "void *", "size_t", "uint"]);

const duplicateClosedOnExec = 1030;
const getStatusFlags = 3;
const setStatusFlags = 4;
const setPipeSize = 1031;
const nonBlocking = 0o4000;
const closedOnExec = 0o2000000;
const socketLevel = 1;
const receiveTimeout = 20;
const sendTimeout = 21;
const peek = 0x2;
const dontWait = 0x40;
const noSignal = 0x4000;
const moreFollows = 0x8000;
const spliceMove = 0x1;
const spliceMore = 0x4;

/** Another descriptor of the same open file or socket, which lives on when the first is closed. Programs started later do not get it. */
export function duplicate(fd: number): number {
  return checked("fcntl F_DUPFD_CLOEXEC", fcntlNumber(fd, duplicateClosedOnExec, 0));
}

/** Makes calls on the socket wait until they can be served, but no longer than `timeoutMs` at a time. */
export function makeBlocking(socketFd: number, timeoutMs: number): void {
  const flags = checked("fcntl F_GETFL", fcntlNumber(socketFd, getStatusFlags, 0));
  checked("fcntl F_SETFL", fcntlNumber(socketFd, setStatusFlags, flags & ~nonBlocking));
  const timeval = Buffer.alloc(16);
  timeval.writeBigInt64LE(BigInt(Math.floor(timeoutMs / 1000)), 0);
  timeval.writeBigInt64LE(BigInt((timeoutMs % 1000) * 1000), 8);
  for (const option of [receiveTimeout, sendTimeout]) {
    checked("setsockopt", setsockopt(socketFd, socketLevel, option, timeval, timeval.length));
  }
}

/** Ends both directions of a connection at once: calls that wait on it return, in every thread. The descriptor stays open. */
export function hangUp(socketFd: number): void {
  shutdown(socketFd, 2);
}

/** Tells the other side that nothing more will be sent. */
export function endSending(socketFd: number): void {
  shutdown(socketFd, 1);
}

function shutdown(socketFd: number, how: number): void {
  if (shutdownSocket(socketFd, how) >= 0) return;
  const error = systemError("shutdown", koffi.errno());
  // The other side was faster.
  if (error.code !== "ENOTCONN") throw error;
}

/** What moved, or `undefined` when nothing could be moved in the time there was, or a signal came: try again. */
function moved(syscall: string, result: number | bigint): number | undefined {
  if (result >= 0) return Number(result);
  const error = systemError(syscall, koffi.errno());
  if (error.code === "EAGAIN" || error.code === "EINTR") return undefined;
  throw error;
}

/** Fills a part of `into`; 0 at the stream's end, `undefined` when nothing came in time. */
export function receive(socketFd: number, into: Uint8Array): number | undefined {
  return moved("recv", recv(socketFd, into, into.length, 0));
}

/** Whether the stream is open and nothing lies there to be received. Does not wait. */
export function isQuiet(socketFd: number): boolean {
  return moved("recv", recv(socketFd, Buffer.alloc(1), 1, peek | dontWait)) === undefined;
}

/** Sends a part of `data`; `undefined` when nothing could be sent in time. With `more`, it may wait for what is sent next. */
export function sendSome(socketFd: number, data: Uint8Array, { more }: { more: boolean }): number | undefined {
  return moved("send", send(socketFd, data, data.length, noSignal | (more ? moreFollows : 0)));
}

/** Sends a part of [offset, offset + length) of a file; 0 when the file ends there, `undefined` when nothing could be sent in time. */
export function sendFromFile(
  socketFd: number,
  fd: number,
  { offset, length }: { readonly offset: number; readonly length: number },
): number | undefined {
  return moved("sendfile", sendfile(socketFd, fd, position(offset), length));
}

export interface Pipe {
  readonly readFd: number;
  readonly writeFd: number;
}

/** A pipe that holds about `bytes`, or as much as this process may have. */
export function openPipe(bytes: number): Pipe {
  const fds = Buffer.alloc(8);
  checked("pipe2", pipe2(fds, closedOnExec));
  const pipe = { readFd: fds.readInt32LE(0), writeFd: fds.readInt32LE(4) };
  // A smaller one does as well.
  fcntlNumber(pipe.writeFd, setPipeSize, bytes);
  return pipe;
}

/** Moves at most `length` bytes from a socket into a pipe; 0 at the stream's end, `undefined` when nothing came in time. */
export function spliceIn(socketFd: number, { writeFd }: Pipe, length: number): number | undefined {
  return moved("splice", splice(socketFd, null, writeFd, null, length, spliceMove | spliceMore));
}

/** Moves at most `length` bytes from a pipe to [offset, …) of a file; `undefined` when a signal came first. */
export function spliceOut(
  { readFd }: Pipe,
  fd: number,
  { offset, length }: { readonly offset: number; readonly length: number },
): number | undefined {
  return moved("splice", splice(readFd, null, fd, position(offset), length, spliceMove));
}

function position(offset: number): BigInt64Array {
  return BigInt64Array.of(BigInt(offset));
}
