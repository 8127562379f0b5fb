import { expect, test } from "@jest/globals";
import { peerRequests, syncsIn } from "./counts.ts";

test("a sync counts once, also when another thread's call is told in between", () => {
  const text = [
    "101   fsync(23)                         = 0",
    "101   fdatasync(24 <unfinished ...>",
    "102   fsync(25)                         = 0",
    "101   <... fdatasync resumed>)          = 0",
    "",
  ].join("\n");
  expect(syncsIn(text)).toBe(3);
});

test("of a log the requests of peers are told, without names", () => {
  const log = [
    '{"method":"POST","path":"/v1/peer/volumes/0f8fad5b-d9cb-469f-a165-70867728950e/term","status":200}',
    '{"method":"GET","path":"/v1/agent","status":200}',
    '{"msg":"agent ready"}',
    "longshore agent source is ready",
  ].join("\n");
  expect(peerRequests(log)).toEqual(["POST /v1/peer/volumes/…/term"]);
});
