import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { type CommittedPoint, decidePublication, type PublicationRule, type SourceClaim } from "./publication.ts";

const claim: SourceClaim = { namespace: "shop", name: "db", labels: { app: "db", tier: "gold" } };

/** A point whose id repeats a digit, taken in the minute of that number. */
function point(digit: number, more: Partial<CommittedPoint> = {}): CommittedPoint {
  const sourceTime = `2026-03-01T12:0${digit}:00.000Z`;
  return { pointId: String(digit).repeat(32), sourceTime, isWhole: true, ...more };
}

function show(rules: readonly PublicationRule[], points: readonly CommittedPoint[] = [point(1)], of = claim): string {
  const { places, problem } = decidePublication(rules, of, points);
  const shown = places.map(({ namespace, name, snapshotClassName }) =>
    [`${namespace}/${name}`, snapshotClassName].filter(Boolean).join(" "),
  );
  return [...shown, ...(problem === undefined ? [] : ["problem"])].join(", ") || "none";
}

test.each<[string, PublicationRule[], string]>([
  ["no rules", [], "none"],
  ["a rule for all", [{ namespace: "restore" }], "restore/db"],
  ["a name made of both", [{ namespace: "restore", name: "{namespace}.{claim}-copy" }], "restore/shop.db-copy"],
  ["a class", [{ namespace: "restore", snapshotClassName: "longshore" }], "restore/db longshore"],
  ["the namespace matches", [{ namespace: "restore", sourceNamespaces: ["bank", "shop"] }], "restore/db"],
  ["another namespace", [{ namespace: "restore", sourceNamespaces: ["bank"] }], "none"],
  ["another claim", [{ namespace: "restore", claimNames: ["web"] }], "none"],
  ["all labels match", [{ namespace: "restore", matchLabels: { app: "db", tier: "gold" } }], "restore/db"],
  ["one label does not", [{ namespace: "restore", matchLabels: { app: "db", tier: "iron" } }], "none"],
  ["the first that matches", [{ namespace: "a", claimNames: ["web"] }, { namespace: "b" }, { namespace: "c" }], "b/db"],
  ["a name that cannot be", [{ namespace: "restore", name: "{claim}-" }], "problem"],
  ["a name that Kubernetes would refuse", [{ namespace: "restore", name: "{claim}..copy" }], "problem"],
  ["a name that is too long", [{ namespace: "restore", name: "{claim}".repeat(127) }], "problem"],
])("%s", (_, rules, expected) => {
  expect(show(rules)).toBe(expected);
});

test("nothing is published before the first commit", () => {
  expect(show([{ namespace: "restore", pinned: { keep: 3 } }], [])).toBe("none");
});

test("a volume without a claim is published by a rule for all that names it", () => {
  const unknown = (rules: PublicationRule[]) => {
    const { places, problem } = decidePublication(rules, undefined, [point(1)]);
    return [places.length, problem !== undefined];
  };
  expect(unknown([{ namespace: "restore", name: "host-disk" }])).toEqual([1, false]);
  expect(unknown([{ namespace: "restore" }])).toEqual([0, true]);
  expect(unknown([{ namespace: "restore", name: "x", claimNames: ["db"] }])).toEqual([0, false]);
  // What has a name is published all the same.
  expect(unknown([{ namespace: "restore", name: "x", pinned: { keep: 1, name: "{claim}-{point}" } }])).toEqual([
    1,
    true,
  ]);
});

const three = [point(1), point(2), point(3)];

test.each<[string, PublicationRule["pinned"], CommittedPoint[], string]>([
  ["the newest ones", { keep: 2 }, three, "restore/db, restore/db-3333333333, restore/db-2222222222"],
  ["all there are", { keep: 9 }, [point(1)], "restore/db, restore/db-1111111111"],
  ["by their time", { keep: 1, name: "{claim}-{time}" }, three, "restore/db, restore/db-20260301t120300.000z"],
  [
    "not those whose data is lost",
    { keep: 2 },
    [point(1), point(2, { isWhole: false }), point(3)],
    "restore/db, restore/db-3333333333, restore/db-1111111111",
  ],
  ["by a name that cannot be", { keep: 1, name: "{point}-" }, three, "restore/db, problem"],
])("pinned points are %s", (_, pinned, points, expected) => {
  expect(show([{ namespace: "restore", ...(pinned && { pinned }) }], points)).toBe(expected);
});

test("a group point has one id in the names of all its volumes, whichever point of each it is", () => {
  const groupPoint = "abcdef0123".padEnd(32, "0");
  const rules = [{ namespace: "restore", pinned: { keep: 1 } }];
  const placeOf = (name: string, digit: number) =>
    decidePublication(rules, { ...claim, name }, [point(digit, { groupPoint })]).places[1];
  expect([placeOf("db", 1)?.name, placeOf("log", 2)?.name]).toEqual(["db-abcdef0123", "log-abcdef0123"]);
  expect(placeOf("db", 1)).toMatchObject({ point: groupPoint, sourceTime: "2026-03-01T12:01:00.000Z" });
});

test("a point's name stays the same whatever other points come and go", () => {
  const points = fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(points, points, fc.integer({ min: 1, max: 6 }), (some, others, keep) => {
      const rules = [{ namespace: "restore", pinned: { keep, name: "{claim}-{time}-{point}" } }];
      const namesOf = (digits: readonly number[]) => {
        const committed = digits.toSorted().map((digit) => point(digit));
        const { places } = decidePublication(rules, claim, committed);
        expect(places.length).toBe(1 + Math.min(keep, digits.length));
        return new Map(places.map(({ point: id, name }) => [id, name]));
      };
      const [before, after] = [namesOf(some), namesOf(others)];
      for (const [id, name] of after) if (before.has(id)) expect(name).toBe(before.get(id));
      expect(new Set(after.values()).size).toBe(after.size);
    }),
  );
});
