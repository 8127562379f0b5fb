// The system calls on sockets and pipes that Node.js does not offer. A wrong signature is a crash, so each has a test of its own.
// Linux only; failures are SystemErrors, as in file-calls.ts.
import { checked, libc } from "./libc.ts";

const fcntlNumber = libc.func("fcntl", "int", ["int", "int", "int"]);

const duplicateClosedOnExec = 1030;

/** Another descriptor of the same open file or socket, which lives on when the first is closed. Programs started later do not get it. */
export function duplicate(fd: number): number {
  return checked("fcntl F_DUPFD_CLOEXEC", fcntlNumber(fd, duplicateClosedOnExec, 0));
}
