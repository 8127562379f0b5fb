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
  let lookedAtMs = performance.now();
  const sinceLookMs = () => Math.min(performance.now() - lookedAtMs, stepMsMax);
  const running = (async () => {
    while (!isStopped) {
      await pause(stepMs);
      const passedMs = sinceLookMs();
      lookedAtMs = performance.now();
      await clock.advance(passedMs);
    }
  })();
  let toldMs = 0;
  return {
    nowMs: () => systemClock.nowMs(),
    // Finer than the steps, for what is measured; it never goes backwards in the middle of one.
    monotonicMs() {
      toldMs = Math.max(toldMs, clock.monotonicMs() + sinceLookMs());
      return toldMs;
    },
    sleep: (durationMs, signal) => clock.sleep(durationMs, signal),
    stop() {
      isStopped = true;
      return running;
    },
  };
}
