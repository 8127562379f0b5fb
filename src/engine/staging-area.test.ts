import { expect, test } from "@jest/globals";
import type { Core } from "./core.ts";
import type { MigratedRow } from "./migrated.ts";
import type { PointRow } from "./points.ts";
import { likelyBase, StagingArea } from "./staging-area.ts";

/** Points as "id/file state", in order. */
function points(...texts: string[]): PointRow[] {
  return texts.map((text) => {
    const [, pointId, file, state] = /^(\w+)\/(\w+) (\w+)$/.exec(text) ?? [];
    return { pointId, file, state } as PointRow;
  });
}

test.each([
  ["the newest", points("a/a sealed", "b/b sealed"), "b"],
  ["the newest that is there", points("a/a sealed", "b/b lost", "c/c deleting"), "a"],
  ["none after one without changes", points("a/a sealed", "b/a sealed"), undefined],
  ["the newest again once there are changes", points("a/a sealed", "b/a sealed", "c/c sealed"), "c"],
  ["none for a first copy", points(), undefined],
  ["none when all are lost", points("a/a lost"), undefined],
])("the next plan is expected to start from %s", (_, known, expected) => {
  expect(likelyBase(known)?.pointId).toBe(expected);
});

test("a transport that is not served is refused, and the setting that would have it served is named", () => {
  const area = new StagingArea(
    { node: "node-1", lanes: {} } as Core,
    {} as ConstructorParameters<typeof StagingArea>[1],
  );
  const ticket = () => area.laneTicket({} as MigratedRow, { lane: 0, transport: "kernel" });
  expect(ticket).toThrow("node-1 serves no kernel lanes; set kernelLaneListen in its agent's configuration");
});
