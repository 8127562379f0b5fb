import { expect, test } from "@jest/globals";
import { keyedLock } from "./keyed-lock.ts";

test("work under one key runs in the order of asking, also behind work that failed", async () => {
  const lock = keyedLock();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = lock.run("a", async () => {
    await gate.promise;
    order.push("first");
    throw new Error("first failed");
  });
  const second = lock.run("a", async () => void order.push("second"));
  await lock.run("b", async () => void order.push("other key"));
  gate.resolve();
  await expect(first).rejects.toThrow("first failed");
  await second;
  expect(order).toEqual(["other key", "first", "second"]);
});
