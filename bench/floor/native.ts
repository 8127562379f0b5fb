// The system calls of the floors, through koffi: this is the only file of the benchmark with native signatures. Calls
// block, which is what a bare program does.
import koffi from "koffi";
import { systemError } from "../../src/base/system-error.ts";
import { libc } from "../../src/native/libc.ts";

const socket = libc.func("socket", "int", ["int", "int", "int"]);
const bind = libc.func("bind", "int", ["int", "void *", "uint32_t"]);
const listen = libc.func("listen", "int", ["int", "int"]);
const accept = libc.func("accept", "int", ["int", "void *", "void *"]);
const connect = libc.func("connect", "int", ["int", "void *", "uint32_t"]);
const getsockname = libc.func("getsockname", "int", ["int", "void *", "void *"]);
const setsockopt = libc.func("setsockopt", "int", ["int", "int", "int", "void *", "uint32_t"]);
const recv = libc.func("recv", "int64_t", ["int", "void *", "size_t", "int"]);
const send = libc.func("send", "int64_t", ["int", "void *", "size_t", "int"]);
const spliceCall = libc.func("splice", "int64_t", ["int", "void *", "int", "void *", "size_t", "uint"]);
const sendfileCall = libc.func("sendfile", "int64_t", ["int", "int", "void *", "size_t"]);
const pipe2 = libc.func("pipe2", "int", ["void *", "int"]);
const fcntl = libc.func("fcntl", "int", ["int", "int", "int"]);
const close = libc.func("close", "int", ["int"]);

function checked(syscall: string, result: number | bigint): number {
  if (Number(result) >= 0) return Number(result);
  throw systemError(syscall, koffi.errno());
}

const [inet, streamSocket] = [2, 1];
const addressBytes = 16;

function loopback(port: number): Buffer {
  const address = Buffer.alloc(addressBytes); // struct sockaddr_in
  address.writeUInt16LE(inet, 0);
  address.writeUInt16BE(port, 2);
  address.set([127, 0, 0, 1], 4);
  return address;
}

export interface Listener {
  readonly fd: number;
  readonly port: number;
}

/** Listens on a free port of loopback. */
export function listenOnLoopback(): Listener {
  const fd = checked("socket", socket(inet, streamSocket, 0));
  checked("bind", bind(fd, loopback(0), addressBytes));
  checked("listen", listen(fd, 8));
  const [address, length] = [Buffer.alloc(addressBytes), Buffer.alloc(4)];
  length.writeUInt32LE(addressBytes);
  checked("getsockname", getsockname(fd, address, length));
  return { fd, port: address.readUInt16BE(2) };
}

export function acceptOne({ fd }: Listener): number {
  return checked("accept", accept(fd, null, null));
}

export function connectTo(port: number): number {
  const fd = checked("socket", socket(inet, streamSocket, 0));
  checked("connect", connect(fd, loopback(port), addressBytes));
  return fd;
}

/** Keeps partly filled segments back, until it is switched off: for many small pieces in a row. */
export function setCork(fd: number, isOn: boolean): void {
  const value = Buffer.alloc(4);
  value.writeInt32LE(isOn ? 1 : 0);
  checked("setsockopt TCP_CORK", setsockopt(fd, 6, 3, value, 4));
}

/** Sends up to so many bytes of the file from `offset`; how many it were. */
export function sendFile(toSocket: number, fd: number, offset: number, length: number): number {
  const at = Buffer.alloc(8);
  at.writeBigInt64LE(BigInt(offset));
  return checked("sendfile", sendfileCall(toSocket, fd, at, length));
}

const spliceMove = 1;

export interface Pipe {
  readonly readFd: number;
  readonly writeFd: number;
}

/** A pipe of as many bytes as unprivileged processes may ask for. */
export const pipeBytes = 1 << 20;

export function openPipe(): Pipe {
  const ends = Buffer.alloc(8);
  checked("pipe2", pipe2(ends, 0));
  const pipe = { readFd: ends.readInt32LE(0), writeFd: ends.readInt32LE(4) };
  checked("fcntl F_SETPIPE_SZ", fcntl(pipe.writeFd, 1031, pipeBytes));
  return pipe;
}

/** Moves up to so many bytes from the socket into the pipe; 0 at the end of the stream. */
export function spliceIn(fromSocket: number, { writeFd }: Pipe, length: number): number {
  return checked("splice from a socket", spliceCall(fromSocket, null, writeFd, null, length, spliceMove));
}

/** Moves up to so many bytes from the pipe to that place of the file. */
export function spliceOut({ readFd }: Pipe, fd: number, offset: number, length: number): number {
  const at = Buffer.alloc(8);
  at.writeBigInt64LE(BigInt(offset));
  return checked("splice to a file", spliceCall(readFd, null, fd, at, length, spliceMove));
}

/** Says, or waits for, that all is done: one byte. */
export function sendDone(fd: number): void {
  checked("send", send(fd, Buffer.from([1]), 1, 0));
}

export function receiveDone(fd: number): void {
  if (checked("recv", recv(fd, Buffer.alloc(1), 1, 0)) !== 1) throw new Error("the other side ended without a word");
}

export function closeFd(fd: number): void {
  checked("close", close(fd));
}
