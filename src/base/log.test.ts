import { expect, test } from "@jest/globals";
import { openLog, silentLog } from "./log.ts";

/** What `write` logs, parsed line by line. */
function lines(write: (log: ReturnType<typeof openLog>) => void): readonly Record<string, unknown>[] {
  const taken: string[] = [];
  const log = openLog({ name: "agent", level: "info" }, { write: (line: string) => taken.push(line) });
  write(log);
  return taken.map((line) => JSON.parse(line) as Record<string, unknown>);
}

test("a line carries the name, the level as a word, the time, the fields and the message", () => {
  const [line] = lines((log) => log.info({ volume: "a" }, "volume created"));
  expect(line).toMatchObject({ name: "agent", level: "info", volume: "a", msg: "volume created" });
  expect(line?.time).toMatch(/^\d{4}-\d\d-\d\dT/);
});

test("lines below the level are not written", () => {
  expect(lines((log) => log.debug("detail"))).toEqual([]);
});

test("tokens and tickets are redacted at the top and one level down", () => {
  const [line] = lines((log) => log.info({ token: "s3cret", lane: { ticket: "s3cret" } }, "lane opened"));
  expect(JSON.stringify(line)).not.toContain("s3cret");
});

test("the silent log is silent", () => {
  expect(silentLog.isLevelEnabled("fatal")).toBe(false);
});
