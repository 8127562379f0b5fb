import { expect, test } from "@jest/globals";
import { oneOperationAtATime } from "./one-operation.ts";

test("a second operation on the same thing is told to come back, and does not begin", async () => {
  const operations = oneOperationAtATime();
  const first = Promise.withResolvers<string>();
  const running = operations.run("volume a", () => first.promise);
  let hasBegun = false;
  const second = operations.run("volume a", async () => {
    hasBegun = true;
  });
  await expect(second).rejects.toMatchObject({ code: "ABORTED", message: expect.stringContaining("volume a") });
  expect(hasBegun).toBe(false);
  first.resolve("done");
  expect(await running).toBe("done");
});

test("another thing does not wait", async () => {
  const operations = oneOperationAtATime();
  const first = Promise.withResolvers<void>();
  const running = operations.run("volume a", () => first.promise);
  expect(await operations.run("volume b", async () => 1)).toBe(1);
  first.resolve();
  await running;
});

test("after it has ended, however it did, the next one begins", async () => {
  const operations = oneOperationAtATime();
  await expect(operations.run("volume a", () => Promise.reject(new Error("broken")))).rejects.toThrow("broken");
  expect(await operations.run("volume a", async () => 2)).toBe(2);
});
