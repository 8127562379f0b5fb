// How much memory this process takes while it works: V8 trades memory for time more freely than something that runs beside
// other people's work should.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * For a process that serves others: the heap, of all threads, is collected once it has grown by a quarter, where V8 would let it
 * grow several times over while it is small. Time did not change measurably; docs/data-path.md has the figures.
 */
export function keepHeapSmall(): void {
  // On the command line V8 takes it for another build: it throws away the compiled code it comes with, for 15 MiB more.
  setFlagsFromString("--heap-growing-percent=25");
}

type Collect = (options: { readonly type: "minor" }) => void;

/** Collecting takes well below a millisecond where little is alive. */
const uncollectedBytesMax = 8 * 1024 * 1024;

/** Each thread has its own, as it has a heap of its own. */
let uncollectedBytes = 0;
let collect: Collect | undefined;

/**
 * Tells that so many bytes were taken, in this thread, outside the heap and for a moment only; now and then this collects
 * them. V8 collects young garbage when the objects fill their part of the heap, however much each of them holds elsewhere:
 * of what is read from a stream, 64 KiB for a small object, 47 MiB came together before that.
 */
export function tookShortLived(bytes: number): void {
  uncollectedBytes += bytes;
  if (uncollectedBytes < uncollectedBytesMax) return;
  uncollectedBytes = 0;
  collect ??= exposedCollect();
  collect({ type: "minor" });
}

function exposedCollect(): Collect {
  setFlagsFromString("--expose-gc");
  try {
    return runInNewContext("gc");
  } finally {
    setFlagsFromString("--no-expose-gc");
  }
}
