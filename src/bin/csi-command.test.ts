import { expect, test } from "@jest/globals";
import { runLongshore } from "./longshore.ts";
import type { Streams } from "./streams.ts";

/** Runs a command line as a person without a terminal; the status and what was said. */
async function run(words: readonly string[]): Promise<{ readonly status: number; readonly said: string }> {
  let said = "";
  const say = (text: string) => {
    said += text;
  };
  const streams: Streams = {
    out: say,
    err: say,
    input: async () => "",
    isColoured: false,
    env: {},
    stop: new AbortController().signal,
    exitCode: 0,
  };
  return { status: await runLongshore(words, streams), said };
}

const tls = ["--cert", "/none/a", "--key", "/none/b", "--ca", "/none/c"];
const controller = ["csi", "controller", "--agents", "127.0.0.1:1", ...tls];
const node = ["csi", "node", "--node", "n1", "--agent", "127.0.0.1:1", ...tls];
const endpoint = ["--endpoint", "unix:///none/csi.sock"];

test.each([
  [["csi", "controller"], "--endpoint"],
  [["csi", "node", ...endpoint, ...tls], "--node"],
  [["csi", "controller", ...endpoint, ...tls], "--agents"],
  [[...controller, "--endpoint", "/csi/csi.sock"], "write it as in unix:///csi/csi.sock"],
  [[...controller, ...endpoint, "--listen", "9808"], "--listen 9808: write host:port or :port"],
  [[...controller, ...endpoint, "--log-level", "loud"], "--log-level loud: use trace, debug"],
  [[...controller, ...endpoint], "cannot read /none/"],
  [[...node, ...endpoint], "cannot read /none/"],
])("%j is refused, and says what is wrong", async (words, message) => {
  const { status, said } = await run(words);
  expect(status).toBe(2);
  expect(said).toContain(message);
});

test("both processes tell what they need", async () => {
  expect((await run(["csi", "controller", "--help"])).said).toContain("--agents <host:port,...>");
  expect((await run(["csi", "node", "--help"])).said).toContain("--registration-endpoint <path>");
});
