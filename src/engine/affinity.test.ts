import { expect, test } from "@jest/globals";
import type { LocateRequest } from "../wire/peer.ts";
import { affinitiesOf } from "./affinity.ts";

test("the affinities of a request are told once each", () => {
  const request: LocateRequest = {
    group: "shop.db",
    volumes: [
      { volume: "v1", sizeBytes: 4096, affinity: "a" },
      { volume: "v2", sizeBytes: 4096 },
      { volume: "v3", sizeBytes: 4096, affinity: "a" },
      { volume: "v4", sizeBytes: 4096, affinity: "b" },
    ],
  };
  expect(affinitiesOf(request)).toEqual(["a", "b"]);
});
