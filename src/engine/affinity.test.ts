import { describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../domain/errors.ts";
import type { LocateRequest } from "../wire/peer.ts";
import { affinitiesOf, askOrPlain, withoutAffinity } from "./affinity.ts";

const lineage = { clusterUid: "c", volumeUid: "v", pointId: "0".repeat(32) };
const request: LocateRequest = {
  group: "shop.db",
  volumes: [
    { volume: "v1", sizeBytes: 4096, affinity: "a", lineage },
    { volume: "v2", sizeBytes: 4096 },
    { volume: "v3", sizeBytes: 4096, affinity: "a" },
    { volume: "v4", sizeBytes: 4096, affinity: "b" },
  ],
};

test("the affinities of a request are told once each", () => {
  expect(affinitiesOf(request)).toEqual(["a", "b"]);
});

test("without affinities a request is what it was otherwise", () => {
  expect(withoutAffinity(request)).toEqual({
    group: "shop.db",
    volumes: [
      { volume: "v1", sizeBytes: 4096, lineage },
      { volume: "v2", sizeBytes: 4096 },
      { volume: "v3", sizeBytes: 4096 },
      { volume: "v4", sizeBytes: 4096 },
    ],
  });
  expect(withoutAffinity({ volumes: [{ volume: "v1", sizeBytes: 4096 }] })).toBeUndefined();
});

describe("a request that may be too much for an older agent", () => {
  test.each([
    // what is refused, how, whether there is a plain one, what comes of it
    ["nothing", "BadRequest", true, "full"],
    ["full", "BadRequest", true, "full plain"],
    ["full", "BadRequest", false, "full BadRequest"],
    ["full", "Unreachable", true, "full Unreachable"],
    ["full plain", "BadRequest", true, "full plain BadRequest"],
  ] as const)("refused [%s] with %s, with a plain one %s, is asked [%s]", async (refused, code, isPlain, outcome) => {
    const asked: string[] = [];
    const ask = async (text: string) => {
      asked.push(text);
      if (refused.split(" ").includes(text)) throw new LongshoreError(code, "refused");
    };
    const failure = await askOrPlain(ask, "full", isPlain ? "plain" : undefined).then(
      () => undefined,
      (error: LongshoreError) => error.code,
    );
    expect([...asked, ...(failure === undefined ? [] : [failure])].join(" ")).toBe(outcome);
  });
});
