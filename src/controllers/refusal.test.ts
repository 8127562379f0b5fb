import { expect, test } from "@jest/globals";
import { LongshoreError } from "../domain/errors.ts";
import { explain, refusalOfAny, steady } from "./refusal.ts";

test.each([
  ["12 bytes are free", "3 bytes are free"],
  ["1.25 GiB of 2 GiB are free", "1.5 GiB of 2 GiB are free"],
  ["see request 1f1f1f1f2e2e2e2e. Report it", "see request 00ff00ff00ff00ff. Report it"],
])("%j is not said anew as %j", (before, text) => {
  expect(steady(text, before)).toBe(before);
});

test.each([
  ["volume vol-1 is busy", "volume vol-2 is busy"],
  ["cannot connect to 10.0.0.1:7420", "cannot connect to 10.0.0.2:7420"],
  ["shop/1 is busy", "shop/2 is busy"],
  ["", "no room"],
])("%j and then %j are two things", (before, text) => {
  expect([steady(text, before), steady(text, undefined)]).toEqual([text, text]);
});

test("what went wrong is told with what to do next, in the words it was told in before", () => {
  const full = (freeBytes: number) => new LongshoreError("DiskFull", `${freeBytes} bytes are free`);
  const first = explain(full(7));
  expect(first).toBe("7 bytes are free. Free space on the node's storage, or raise its size.");
  expect(explain(full(5), first)).toBe(first);
  expect(explain(new LongshoreError("VolumeBusy", "vol-1 is attached"), first)).toContain("vol-1 is attached");
});

test("one that refuses, or never answers, keeps no other from being asked", async () => {
  const asked: number[] = [];
  const refused = new LongshoreError("Timeout", "2 does not answer");
  const refusal = await refusalOfAny([1, 2, 3], async (each) => {
    asked.push(each);
    if (each === 2) throw refused;
  });
  expect([asked, refusal]).toEqual([[1, 2, 3], refused]);
  void refusalOfAny([4, 5], async (each) => {
    asked.push(each);
    if (each === 4) await new Promise(() => undefined);
  });
  expect(asked).toEqual([1, 2, 3, 4, 5]);
  await expect(refusalOfAny([6], () => Promise.reject(new Error("a bug")))).rejects.toThrow("a bug");
});
