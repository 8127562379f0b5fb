// Takes a connection away from Node's own event loop, so that a thread may have it: a socket itself cannot be handed over.
import type { Socket } from "node:net";
import { duplicate } from "../native/socket-calls.ts";

/** Whoever gets the descriptor owns it; the socket is gone. `undefined` when the connection is closed already. */
export function adoptSocket(socket: Socket): number | undefined {
  // There is no public way to the descriptor. It is of the kernel, not of Node, that it can be duplicated.
  const { fd = -1 } = (socket as unknown as { _handle: { fd?: number } | null })._handle ?? {};
  try {
    return fd < 0 ? undefined : duplicate(fd);
  } finally {
    socket.destroy();
  }
}
