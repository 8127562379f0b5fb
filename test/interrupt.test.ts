import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "@jest/globals";

const preamble = `import { onInterrupt } from ${JSON.stringify(join(import.meta.dirname, "interrupt.ts"))};
  const show = (text) => () => process.stdout.write(text + "\\n");`;

/** Runs the program until it says "ready", then acts on it; returns what it wrote afterwards and how it ended. */
async function interrupted(program: string, act: "SIGINT" | "SIGTERM" | "disconnect" | "nothing"): Promise<string[]> {
  const source = `${preamble}\n${program}\nshow("ready")();`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
    stdio: ["ignore", "pipe", "ignore", "ipc"],
  });
  const lines: string[] = [];
  const output = createInterface(child.stdout as NonNullable<typeof child.stdout>);
  const ended = Promise.all([once(child, "exit"), once(output, "close")]);
  output.on("line", (line) => {
    lines.push(line);
    if (line !== "ready") return;
    if (act === "disconnect") child.disconnect();
    else if (act !== "nothing") child.kill(act);
  });
  const [[status, signal]] = await ended;
  return [...lines.slice(1), `ended with ${signal ?? status}`];
}

const wait = "setInterval(() => undefined, 1000);";

test.each([
  // what happens, program, what it wrote and how it ended
  ["SIGINT", `onInterrupt(show("a")); onInterrupt(show("b")); ${wait}`, ["b", "a", "ended with 130"]],
  ["SIGTERM", `onInterrupt(show("a")); ${wait}`, ["a", "ended with 143"]],
  ["disconnect", `onInterrupt(show("a")); ${wait}`, ["a", "ended with 1"]],
  ["SIGINT", `onInterrupt(show("a"))(); ${wait}`, ["ended with SIGINT"]],
  ["SIGINT", `const f = onInterrupt(show("a")); onInterrupt(show("b")); f(); ${wait}`, ["b", "ended with 130"]],
  ["SIGINT", `onInterrupt(show("a"))(); onInterrupt(show("b")); ${wait}`, ["b", "ended with 130"]],
  ["SIGINT", `onInterrupt(show("a")); onInterrupt(() => { throw new Error(); }); ${wait}`, ["a", "ended with 130"]],
  [
    "SIGINT",
    `process.on("SIGINT", () => setImmediate(() => process.exit(7))); onInterrupt(show("a")); ${wait}`,
    ["a", "ended with 7"],
  ],
  ["nothing", `onInterrupt(show("a"))();`, ["ended with 0"]],
] as const)("on %s, the program %s undoes what is left to undo and ends", async (act, program, expected) => {
  expect(await interrupted(program, act)).toEqual([...expected]);
});
