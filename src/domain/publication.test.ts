import { expect, test } from "@jest/globals";
import { decidePublication, type PublicationRule, type SourceClaim } from "./publication.ts";

const claim: SourceClaim = { namespace: "shop", name: "db", labels: { app: "db", tier: "gold" } };

function show(rules: readonly PublicationRule[], of: SourceClaim | undefined = claim): string {
  const decision = decidePublication(rules, of);
  if (decision.kind !== "publish") return decision.kind;
  const { namespace, name, snapshotClassName } = decision.publication;
  return [`${namespace}/${name}`, snapshotClassName].filter(Boolean).join(" ");
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
  ["a name that cannot be", [{ namespace: "restore", name: "{claim}-" }], "invalid"],
])("%s", (_, rules, expected) => {
  expect(show(rules)).toBe(expected);
});

test("a volume without a claim is published by a rule for all that names it", () => {
  const unknown = (rules: PublicationRule[]) => decidePublication(rules, undefined).kind;
  expect(unknown([{ namespace: "restore", name: "host-disk" }])).toBe("publish");
  expect(unknown([{ namespace: "restore" }])).toBe("invalid");
  expect(unknown([{ namespace: "restore", name: "x", claimNames: ["db"] }])).toBe("none");
});
