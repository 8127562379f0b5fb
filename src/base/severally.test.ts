import { expect, test } from "@jest/globals";
import { severally } from "./severally.ts";

test("all is done, so many at a time and in order", async () => {
  const gates = [0, 1, 2, 3, 4].map(() => Promise.withResolvers<void>());
  const begun: number[] = [];
  const all = severally([0, 1, 2, 3, 4], 2, (item) => {
    begun.push(item);
    return gates[item]?.promise ?? Promise.resolve();
  });
  expect(begun).toEqual([0, 1]);
  gates[1]?.resolve();
  await gates[1]?.promise;
  await new Promise((resolve) => setImmediate(resolve));
  expect(begun).toEqual([0, 1, 2]);
  for (const { resolve } of gates) resolve();
  await all;
  expect(begun).toEqual([0, 1, 2, 3, 4]);
});

test("after a failure nothing more begins, and it is thrown when what was under way has ended", async () => {
  const slow = Promise.withResolvers<void>();
  const begun: string[] = [];
  let isOver = false;
  const all = severally(["slow", "bad", "later"], 2, async (item) => {
    begun.push(item);
    if (item === "bad") throw new Error("broken");
    await slow.promise;
  }).finally(() => {
    isOver = true;
  });
  const failed = expect(all).rejects.toThrow("broken");
  await new Promise((resolve) => setImmediate(resolve));
  expect([begun, isOver]).toEqual([["slow", "bad"], false]);
  slow.resolve();
  await failed;
  expect(begun).toEqual(["slow", "bad"]);
});

test("nothing to do is done", async () => {
  await severally([], 4, () => Promise.reject(new Error("not asked for")));
});
