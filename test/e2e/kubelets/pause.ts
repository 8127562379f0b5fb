// Waiting where nothing can be awaited: while a run is being interrupted.

/** Blocks this thread. */
export function pauseMs(durationMs: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, durationMs);
}
