import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { isVolumeHandle } from "../domain/handles.ts";
import { agentNameOf, isOperators } from "./agent-names.ts";

test.each(["pvc-3f0a4c1e-9d55-4a39-8b13-0f6f7c1f2a10", "snapshot-3f0a4c1e-9d55-4a39-8b13-0f6f7c1f2a10", "a.b"])(
  "%s is taken as it is",
  (name) => {
    expect(agentNameOf(name)).toBe(name);
  },
);

test.each([
  "PVC-1",
  "größe",
  "a".repeat(64),
  "-",
  "a..b",
  "auto-20260301t120000.000z",
  "demand-1",
  "clone-3f0a4c1e-9d55-4a39-8b13-0f6f7c1f2a10",
  "Sanity Controller 4F2A-99",
])("%s is written in another way, which nothing else has", (name) => {
  const written = agentNameOf(name);
  expect(written).toMatch(/^csi-[a-z0-9-]*\.\.[0-9a-f]{16}$/);
  expect(isOperators(written)).toBe(false);
  expect(agentNameOf(written)).not.toBe(written);
});

test("every name gives one that agents take, short enough for a handle of two, and no two give the same", () => {
  const any = fc.oneof(fc.string({ minLength: 1, maxLength: 128 }), fc.stringMatching(/^[a-z0-9.-]{1,128}$/));
  fc.assert(
    fc.property(any, any, (one, other) => {
      const written = agentNameOf(one);
      expect(isVolumeHandle(written) && written.length <= 63).toBe(true);
      expect(agentNameOf(one)).toBe(written);
      expect(agentNameOf(other) === written).toBe(one === other);
    }),
  );
});

test.each([
  ["auto-20260301t120000.000z", true],
  ["demand-3f0a", true],
  ["auto-backup", false],
  ["snapshot-1", false],
])("the snapshot %s is the operator's: %s", (name, isOne) => {
  expect(isOperators(name)).toBe(isOne);
});
