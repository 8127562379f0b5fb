import { expect, test } from "@jest/globals";
import { settledTasks } from "../../test/fakes/fake-clock.ts";
import { sharedReading } from "./shared-reading.ts";

/** Readings that end when they are told to. */
function readings() {
  const begun: PromiseWithResolvers<number>[] = [];
  const ask = sharedReading(() => {
    const reading = Promise.withResolvers<number>();
    begun.push(reading);
    return reading.promise;
  });
  return { begun, ask };
}

test("all who ask while a reading runs share the next one, and no two run at a time", async () => {
  const { begun, ask } = readings();
  const first = ask();
  await settledTasks();
  const later = [ask(), ask(), ask()];
  await settledTasks();
  expect(begun).toHaveLength(1);
  begun[0]?.resolve(1);
  expect(await first).toBe(1);
  await settledTasks();
  expect(begun).toHaveLength(2);
  begun[1]?.resolve(2);
  expect(await Promise.all(later)).toEqual([2, 2, 2]);
});

test("those who ask at once share one reading", async () => {
  const { begun, ask } = readings();
  const both = [ask(), ask()];
  await settledTasks();
  expect(begun).toHaveLength(1);
  begun[0]?.resolve(7);
  expect(await Promise.all(both)).toEqual([7, 7]);
});

test("a reading that fails is told to those who share it, and to nobody else", async () => {
  const { begun, ask } = readings();
  const first = ask();
  await settledTasks();
  const second = ask();
  begun[0]?.reject(new Error("broken"));
  await expect(first).rejects.toThrow("broken");
  await settledTasks();
  begun[1]?.resolve(2);
  expect(await second).toBe(2);
});
