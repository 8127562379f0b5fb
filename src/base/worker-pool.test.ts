import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { openWorkerPool, type WorkerPool } from "./worker-pool.ts";

interface Sum {
  readonly numbers: readonly number[];
}

/** Adds numbers; refuses negative ones, and ends by itself at 13. */
const program = new URL(
  `data:text/javascript,${encodeURIComponent(`
    import { parentPort } from "node:worker_threads";
    parentPort.on("message", (request) => {
      if (request === null) return parentPort.close();
      const { numbers } = request;
      if (numbers.includes(13)) process.exit(1);
      const negative = numbers.find((number) => number < 0);
      const answer = numbers.reduce((sum, number) => sum + number, 0);
      parentPort.postMessage(negative === undefined
        ? { kind: "done", answer }
        : { kind: "failed", error: { message: "negative: " + negative, code: "EDOM", errno: -33 } });
    });
  `)}`,
);

let pool: WorkerPool<Sum, number>;

beforeEach(() => {
  pool = openWorkerPool<Sum, number>(program, 2);
});

afterEach(() => pool.close());

test("requests beyond the number of threads wait for one", async () => {
  const sums = await Promise.all(Array.from({ length: 9 }, (_, index) => pool.run({ numbers: [index, 1] })));
  expect(sums).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("what a request fails with is told, with its code, and the thread goes on", async () => {
  await expect(pool.run({ numbers: [1, -2] })).rejects.toMatchObject({
    message: "negative: -2",
    code: "EDOM",
    errno: -33,
  });
  expect(await pool.run({ numbers: [2, 3] })).toBe(5);
});

test("a thread that ends takes its request with it, and no other", async () => {
  const others = [1, 2, 3, 4].map((number) => pool.run({ numbers: [number] }));
  await expect(pool.run({ numbers: [13] })).rejects.toThrow("ended");
  expect(await Promise.all(others)).toEqual([1, 2, 3, 4]);
  expect(await pool.run({ numbers: [5] })).toBe(5);
});

test("small requests share the thread there is, and hold up no large one", async () => {
  const numbered = openWorkerPool<{ readonly waitsMs: number }, number>(
    new URL(
      `data:text/javascript,${encodeURIComponent(`
        import { parentPort, threadId } from "node:worker_threads";
        const word = new Int32Array(new SharedArrayBuffer(4));
        parentPort.on("message", (request) => {
          if (request === null) return parentPort.close();
          Atomics.wait(word, 0, 0, request.waitsMs);
          parentPort.postMessage({ kind: "done", answer: threadId });
        });
      `)}`,
    ),
    2,
  );
  const small = Array.from({ length: 5 }, () => numbered.run({ waitsMs: 20 }, { isSmall: true }));
  expect(new Set(await Promise.all(small)).size).toBe(1);
  const [first, , large] = await Promise.all([
    numbered.run({ waitsMs: 20 }, { isSmall: true }),
    numbered.run({ waitsMs: 20 }, { isSmall: true }),
    numbered.run({ waitsMs: 0 }),
  ]);
  expect(large).not.toBe(first);
  await numbered.close();
});

test("closing waits for what runs", async () => {
  const running = pool.run({ numbers: [20, 22] });
  await pool.close();
  expect(await running).toBe(42);
});
