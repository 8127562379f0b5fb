import { expect, test } from "@jest/globals";
import fc from "fast-check";
import type { TopologyRequirement } from "./csi-messages.ts";
import { placeVolume, silentOf } from "./placement.ts";
import { mayLieOn, topologyOf } from "./topology.ts";

/** `a5 b9 -c x!` : nodes with their free bytes, that answer, do not, or are lost. */
function cluster(text: string) {
  const words = text.split(" ").filter((word) => word !== "");
  const parsed = words.map((word) => {
    const [, sign, node = "", free, lost] = /^(-?)([a-z]+)(\d*)(!?)$/.exec(word) ?? [];
    const isSilent = sign === "-" || lost === "!";
    return { agentId: `id-${node}`, node, freeBytes: Number(free), isSilent, isLost: lost === "!" };
  });
  return {
    agents: parsed.filter(({ isSilent }) => !isSilent),
    members: parsed.map(({ agentId, node, isLost }) => ({ agentId, node, ...(isLost && { state: "lost" as const }) })),
  };
}

/** `a b / b a` : the nodes that are allowed, and those that are preferred. */
function requirement(text: string): TopologyRequirement | null {
  if (text === "any") return null;
  const [requisite = "", preferred = ""] = text.split("/");
  const topologies = (nodes: string) => (nodes.match(/[a-z]+/g) ?? []).map(topologyOf);
  return { requisite: topologies(requisite), preferred: topologies(preferred) };
}

function show(wanted: string, facts: string): string {
  const placement = placeVolume(requirement(wanted), cluster(facts));
  switch (placement.kind) {
    case "homes":
      return placement.agentIds.map((id) => id.replace("id-", "")).join(" ");
    case "silent":
      return `waits for ${placement.nodes.join(" ")}`;
    case "nowhere":
      return "nowhere";
  }
}

test.each([
  // wanted, agents, homes
  ["any", "a5 b9 c7", "b c a"],
  ["any", "a5 b5 c5", "a b c"],
  ["a c/", "a5 b9 c7", "c a"],
  ["a b c/c a", "a5 b9 c7", "c a b"],
  ["/a", "a5 b9 c7", "a b c"],
  ["c/", "a5 b9 -c", "waits for c"],
  ["c/", "a5 b9 c!", "nowhere"],
  ["d/", "a5 b9 c7", "nowhere"],
  ["a b c/c", "a5 b9 -c", "b a"],
  ["any", "-a -b", "waits for a b"],
])("wanted on [%s] among [%s], a new volume goes to [%s]", (wanted, agents, homes) => {
  expect(show(wanted, agents)).toBe(homes);
});

test("a topology of other keys than ours is nowhere, and an empty one is anywhere", () => {
  const zone = { requisite: [{ segments: { "topology.kubernetes.io/zone": "z" } }], preferred: [] };
  const both = { requisite: [{ segments: { ...topologyOf("a").segments, zone: "z" } }], preferred: [] };
  expect([mayLieOn(zone, "a"), mayLieOn(both, "a")]).toEqual([false, false]);
  expect(mayLieOn({ requisite: [{ segments: {} }], preferred: [] }, "a")).toBe(true);
});

const nodes = fc.uniqueArray(fc.constantFrom<string[]>("a", "b", "c", "d", "e"));
const wishes = fc.record({ requisite: nodes, preferred: nodes });

test("every home is allowed, answers, and comes after no better one; without any, it tells whom to wait for", () => {
  const free = fc.dictionary(fc.constantFrom("a", "b", "c", "d", "e"), fc.nat(9));
  fc.assert(
    fc.property(wishes, free, nodes, (wish, freeBytes, away) => {
      const wanted = { requisite: wish.requisite.map(topologyOf), preferred: wish.preferred.map(topologyOf) };
      const members = Object.keys(freeBytes).map((node) => ({ agentId: node, node }));
      const agents = members
        .filter(({ node }) => !away.includes(node))
        .map((member) => ({ ...member, freeBytes: freeBytes[member.node] ?? 0 }));
      const placement = placeVolume(wanted, { agents, members });
      const rank = (node: string) => (wish.preferred.includes(node) ? wish.preferred.indexOf(node) : 99);
      const silent = silentOf({ agents, members }).filter(({ node }) => mayLieOn(wanted, node));
      if (placement.kind !== "homes") {
        expect(agents.filter(({ node }) => mayLieOn(wanted, node))).toEqual([]);
        expect(placement.kind).toBe(silent.length > 0 ? "silent" : "nowhere");
        return;
      }
      const ranks = placement.agentIds.map(rank);
      expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
      for (const id of placement.agentIds) {
        expect(agents.some(({ agentId }) => agentId === id) && mayLieOn(wanted, id)).toBe(true);
      }
    }),
  );
});
