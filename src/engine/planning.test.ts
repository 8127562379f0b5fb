import { expect, test } from "@jest/globals";
import { UnitList } from "../domain/unit-list.ts";
import { pagesOf, shownMode } from "./planning.ts";

test.each([
  ["a sound difference", { kind: "delta", unshared: false }, "Delta CommonBase"],
  ["a difference that lost its sharing", { kind: "delta", unshared: true }, "Delta Unshared"],
  ["everything, by our own choice", { kind: "allocated", reason: "FirstCopy" }, "Allocated FirstCopy"],
  [
    "everything, because of the base",
    { kind: "allocated", reason: "extents of the base kept moving near byte 7" },
    "Allocated BaseMoved",
  ],
  [
    "everything, for what else storage says",
    { kind: "allocated", reason: "the map is odd" },
    "Allocated MappingUnsound",
  ],
] as const)("%s is shown with a reason in CamelCase", (_what, mode, shown) => {
  const { kind, reason } = shownMode(mode);
  expect(`${kind} ${reason}`).toBe(shown);
});

test("pages hold every unit once, in order, and are bounded by units and by extents", () => {
  const unit = (extents: number, at: number) =>
    Array.from({ length: extents }, (_, index) => [(at * 4096 + index) * 4096, 4096, 1] as const);
  const units = Array.from({ length: 3000 }, (_, index) => unit(index < 20 ? 2048 : 1, index));
  const pages = [...pagesOf(new UnitList(units), 1024)];
  expect(pages.flatMap((page) => page.units)).toEqual(units);
  expect(pages.map(({ first }) => first)).toEqual(
    pages.map((_, index) => pages.slice(0, index).reduce((sum, page) => sum + page.units.length, 0)),
  );
  for (const page of pages) {
    expect(page.units.length).toBeLessThanOrEqual(1024);
    expect(page.units.flat().length).toBeLessThan(16_384 + 2048);
  }
});
