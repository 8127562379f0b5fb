// The machine's clock for engines that share one process, but that a pause of the whole process takes next to no time. In such a
// pause nobody can speak: leases would end, and agents be taken for dead, at whatever point a busy machine made it.
import { setTimeout as pause } from "node:timers/promises";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { FakeClock } from "./fake-clock.ts";

export interface UnhurriedClock extends Clock {
  /** Time stands still from now on. */
  stop(): Promise<void>;
}

const stepMs = 5;
/** Of what passed between two looks at the machine's clock; well below the shortest lease that tests use. */
const stepMsMax = 20;

export function openUnhurriedClock(): UnhurriedClock {
  const clock = new FakeClock();
  let isStopped = false;
  const running = (async () => {
    for (let lastMs = performance.now(); !isStopped; ) {
      await pause(stepMs);
      const nowMs = performance.now();
      await clock.advance(Math.min(nowMs - lastMs, stepMsMax));
      lastMs = nowMs;
    }
  })();
  return {
    nowMs: () => systemClock.nowMs(),
    monotonicMs: () => clock.monotonicMs(),
    sleep: (durationMs, signal) => clock.sleep(durationMs, signal),
    stop() {
      isStopped = true;
      return running;
    },
  };
}
