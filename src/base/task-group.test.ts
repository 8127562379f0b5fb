import { expect, test } from "@jest/globals";
import { openLog } from "./log.ts";
import { taskGroup } from "./task-group.ts";

test("closing stops the work, waits for its end, and failures are logged with the task's name", async () => {
  const lines: string[] = [];
  const group = taskGroup(openLog({ name: "t", level: "info" }, { write: (line) => void lines.push(line) }));
  let ended = false;
  group.spawn("waits", (signal) =>
    new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve())).then(() => {
      ended = true;
    }),
  );
  group.spawn("breaks", () => Promise.reject(new Error("it broke")));
  await new Promise((resolve) => setImmediate(resolve));
  await group.close();
  expect(ended).toBe(true);
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    task: "breaks",
    err: { message: "it broke" },
    msg: "task failed",
  });
});
