import { expect, test } from "@jest/globals";
import fc from "fast-check";
import {
  isVolumeHandle,
  parseGroupSnapshotHandle,
  parseSnapshotHandle,
  renderGroupSnapshotHandle,
  renderSnapshotHandle,
} from "./handles.ts";

const names = fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,118}[a-z0-9])?$/);
const points = fc.oneof(fc.constant("latest" as const), fc.stringMatching(/^[0-9a-f]{32}$/));

test.each([
  ["pvc-1/auto-20260301t120000.000z", { kind: "snapshot", volume: "pvc-1", snapshot: "auto-20260301t120000.000z" }],
  ["east.pvc-1@latest", { kind: "point", migratedVolume: "east.pvc-1", point: "latest" }],
  ["", undefined],
  ["pvc-1", undefined],
  ["pvc-1/", undefined],
  ["pvc-1/a/b", undefined],
  ["pvc-1//b", undefined],
  ["Pvc-1/a", undefined],
  ["pvc-1@newest", undefined],
  ["../etc/passwd", undefined],
  ["pvc-1/a\n", undefined],
])("the snapshot handle %j is %j", (text, handle) => {
  expect(parseSnapshotHandle(text)).toEqual(handle);
});

test("a snapshot handle is read as what it was written of", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.record({ kind: fc.constant("snapshot" as const), volume: names, snapshot: names }),
        fc.record({ kind: fc.constant("point" as const), migratedVolume: names, point: points }),
      ),
      (handle) => {
        expect(parseSnapshotHandle(renderSnapshotHandle(handle))).toEqual(handle);
        expect(parseGroupSnapshotHandle(renderSnapshotHandle(handle))).toBeUndefined();
      },
    ),
  );
});

test("a group snapshot handle is read as what it was written of", () => {
  fc.assert(
    fc.property(names, names, (group, name) => {
      const text = renderGroupSnapshotHandle({ group, name });
      expect(parseGroupSnapshotHandle(text)).toEqual({ group, name });
      expect(parseSnapshotHandle(text)).toBeUndefined();
    }),
  );
});

test.each([
  ["pvc-1", true],
  ["a".repeat(120), true],
  ["a".repeat(121), false],
  ["a/b", false],
  ["", false],
])("%j as a volume handle: %s", (text, isOne) => {
  expect(isVolumeHandle(text)).toBe(isOne);
});
