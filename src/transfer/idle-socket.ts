// When a connection counts as idle, for threads that may be held up by a disk between two looks at it.
import type { Socket } from "node:net";

/**
 * Calls `then` once nothing moved on the socket for so long, unless `isBusy` says that there is a reason on this side. A thread that
 * was held up for long finds its timers due before it has read what came in meanwhile, so it looks once more at the socket.
 */
export function whenIdle(socket: Socket, idleMs: number, isBusy: () => boolean, then: () => void): void {
  socket.setTimeout(idleMs);
  // Each time: what `setTimeout` is given itself is called once only.
  socket.on("timeout", () => {
    const { bytesRead, bytesWritten } = socket;
    setImmediate(() => {
      const hasMoved = socket.bytesRead !== bytesRead || socket.bytesWritten !== bytesWritten;
      if (hasMoved || isBusy()) socket.setTimeout(idleMs);
      else then();
    });
  });
}
