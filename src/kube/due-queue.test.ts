import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { DueQueue } from "./due-queue.ts";

function drain(queue: DueQueue<string>, nowMs: number): string {
  const taken: string[] = [];
  for (let key = queue.takeDue(nowMs); key !== undefined; key = queue.takeDue(nowMs)) taken.push(key);
  return taken.join(" ");
}

test("keys come out when they are due, earliest first", () => {
  const queue = new DueQueue<string>();
  queue.set("c", "c", 30);
  queue.set("a", "a", 10);
  queue.set("b", "b", 20);
  expect(queue.nextMs()).toBe(10);
  expect(drain(queue, 9)).toBe("");
  expect(drain(queue, 20)).toBe("a b");
  expect(queue.size).toBe(1);
});

test("of several times for a key the earliest counts", () => {
  const queue = new DueQueue<string>();
  queue.set("a", "late", 30);
  queue.set("a", "early", 10);
  queue.set("a", "later", 40);
  expect(drain(queue, 50)).toBe("early");
});

test("a deleted key does not come out, and can be set anew for a later time", () => {
  const queue = new DueQueue<string>();
  queue.set("a", "a", 10);
  queue.set("b", "b", 15);
  queue.delete("a");
  queue.set("a", "a", 20);
  expect(drain(queue, 15)).toBe("b");
  expect(drain(queue, 20)).toBe("a");
  expect(queue.nextMs()).toBeUndefined();
});

test("it always agrees with a plain map of times", () => {
  const step = fc.record({
    verb: fc.constantFrom("set", "set", "set", "delete", "take"),
    name: fc.constantFrom("a", "b", "c", "d", "e"),
    timeMs: fc.integer({ min: 0, max: 50 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const queue = new DueQueue<string>();
      const plain = new Map<string, number>();
      for (const { verb, name, timeMs } of steps) {
        if (verb === "set") {
          queue.set(name, name, timeMs);
          plain.set(name, Math.min(timeMs, plain.get(name) ?? timeMs));
        } else if (verb === "delete") {
          queue.delete(name);
          plain.delete(name);
        } else {
          const taken = queue.takeDue(timeMs);
          const earliest = Math.min(...plain.values());
          expect(taken === undefined ? undefined : plain.get(taken)).toBe(earliest <= timeMs ? earliest : undefined);
          if (taken !== undefined) plain.delete(taken);
        }
        expect(queue.size).toBe(plain.size);
        expect(queue.nextMs()).toBe(plain.size === 0 ? undefined : Math.min(...plain.values()));
      }
    }),
    { numRuns: 300 },
  );
});
