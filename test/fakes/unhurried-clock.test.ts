import { expect, test } from "@jest/globals";
import { openUnhurriedClock } from "./unhurried-clock.ts";

test("a pause of the whole process ends no lease that is longer than a few steps, and a renewal comes before it", async () => {
  const clock = openUnhurriedClock();
  const order: string[] = [];
  const lease = clock.sleep(200).then(() => order.push("lease"));
  const renewal = clock.sleep(100).then(() => order.push("renewal"));
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  await clock.sleep(5);
  expect([clock.monotonicMs() < 100, order]).toEqual([true, []]);
  await Promise.all([lease, renewal]);
  expect(order).toEqual(["renewal", "lease"]);
  await clock.stop();
});
