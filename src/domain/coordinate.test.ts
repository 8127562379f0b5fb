import { expect, test } from "@jest/globals";
import { type BaseChoice, chooseBase } from "./coordinate.ts";

const words = (text: string) => text.split(" ").filter((word) => word !== "");

function show(choice: BaseChoice): string {
  const fact = { done: "", gone: "", behind: "newest", base: "pointId", lineage: "pointId", none: "reason" }[
    choice.kind
  ];
  const value = fact === "" ? "" : ` ${(choice as unknown as Record<string, string>)[fact]}`;
  return `${choice.kind}${value}${"diverged" in choice && choice.diverged ? ", diverged" : ""}`;
}

test.each([
  // source, target, to, choice
  ["a", "", "a", "none FirstCopy"],
  ["a b c", "a", "c", "base a"],
  ["a b c", "a b", "c", "base b"],
  ["a b c", "a b c", "c", "done"],
  ["a b c", "a c", "b", "behind c"],
  ["a b c", "a b c", "b", "behind c"],
  // An agent restored from an old disk: at the source, then at the target.
  ["a d", "a b c", "d", "base a, diverged"],
  ["d", "a b c", "d", "none NoCommonPoint, diverged"],
  ["c d", "a b", "d", "none NoCommonPoint, diverged"],
  ["b c d", "a b", "d", "base b"],
  ["a b", "a b c", "b", "done, diverged"],
  ["a b d", "a b c", "a", "behind b"],
  // The base's file vanished at one side, or the snapshot's own did.
  ["b", "a", "b", "none NoCommonPoint, diverged"],
  ["a", "a", "b", "gone"],
  // Restored at the source to before what it had sent: the target has it, although the source no longer does.
  ["a", "a b", "b", "done, diverged"],
])("source [%s] and target [%s], to send %s: %s", (source, target, to, choice) => {
  const facts = { sourcePoints: words(source), targetPoints: words(target), hasCommitted: target !== "", to };
  expect(show(chooseBase(facts))).toBe(choice);
});

test("a target that has lost all the points it once had is not called a first copy", () => {
  const choice = chooseBase({ sourcePoints: ["a", "b"], targetPoints: [], hasCommitted: true, to: "b" });
  expect(show(choice)).toBe("none NoCommonPoint");
});

test.each([
  // source, target, whether both have the point the clone was made of, choice
  ["c", "", true, "lineage p"],
  ["c", "", false, "none LineageGone"],
  ["b c", "b", true, "base b"],
  ["c", "b", true, "lineage p, diverged"],
  ["c", "b", false, "none NoCommonPoint, diverged"],
  ["c", "c", false, "done"],
])(
  "a clone with points [%s] whose original's cluster has [%s], and whose point is common: %s, gives %s",
  (source, target, isCommon, choice) => {
    const facts = { sourcePoints: words(source), targetPoints: words(target), hasCommitted: target !== "", to: "c" };
    expect(show(chooseBase({ ...facts, lineage: { pointId: "p", isCommon } }))).toBe(choice);
  },
);
