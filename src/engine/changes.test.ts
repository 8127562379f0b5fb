import { expect, test } from "@jest/globals";
import { openChangeFeed } from "./changes.ts";

async function take(changes: AsyncIterable<{ kind: string; name: string }>, count: number): Promise<string[]> {
  const taken: string[] = [];
  for await (const change of changes) if (taken.push(`${change.kind} ${change.name}`.trim()) === count) break;
  return taken;
}

test("a reader gets what it has not seen yet, and then what comes", async () => {
  const feed = openChangeFeed(100);
  feed.publish("job", "a");
  const since = feed.sequence;
  feed.publish("job", "b");
  const reading = take(feed.follow(since, new AbortController().signal), 2);
  feed.publish("volume", "c");
  expect(await reading).toEqual(["job b", "volume c"]);
});

test.each([
  ["of an earlier life", 7],
  ["from the future", 1000],
])("a reader with a number %s is told to list everything again", async (_which, since) => {
  const feed = openChangeFeed(100);
  expect(await take(feed.follow(since, new AbortController().signal), 1)).toEqual(["resync"]);
});

test("a reader that fell too far behind is told to list everything again", async () => {
  const feed = openChangeFeed(100);
  for (let index = 0; index < 5000; index++) feed.publish("job", `j${index}`);
  expect(await take(feed.follow(100, new AbortController().signal), 1)).toEqual(["resync"]);
});

test("a reader that stops listening is released", async () => {
  const feed = openChangeFeed(1);
  const stop = new AbortController();
  const reading = take(feed.follow(1, stop.signal), 1);
  stop.abort();
  expect(await reading).toEqual([]);
});
