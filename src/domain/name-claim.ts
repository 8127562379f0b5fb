// Whether an agent may give a name to a new volume, by what the other agents of its cluster have said: one name stands for one volume,
// also while one agent is away. docs/csi.md has the rule and why it holds. A decision; asks nobody, changes nothing.

/** What became of asking one of the other agents. */
export type NameAnswer =
  /** It keeps the claim from now on, and turns down those of others. `knows`: agents that have told it which names they have. */
  | { readonly kind: "kept"; readonly agentId: string; readonly knows: readonly string[] }
  /** Another agent has the name, or has claimed it before. */
  | { readonly kind: "taken"; readonly by: string; readonly isAway: boolean }
  | { readonly kind: "silent"; readonly agentId: string };

export type NameVerdict =
  | { readonly kind: "free" }
  | { readonly kind: "taken"; readonly by: string; readonly isAway: boolean }
  /** These do not answer, and the others cannot speak for them. */
  | { readonly kind: "inDoubt"; readonly agents: readonly string[] };

/**
 * How many agents need not have heard of a claim. Never another number in one cluster: an agent that is away is spoken for by as many
 * others and one more, so that one of them has heard of whatever it has claimed.
 */
export const silentMax = 1;

export function judgeName(answers: readonly NameAnswer[], own: readonly string[]): NameVerdict {
  const taken = answers.find((answer) => answer.kind === "taken");
  if (taken !== undefined) return taken;
  const silent = answers.flatMap((answer) => (answer.kind === "silent" ? [answer.agentId] : []));
  const known = [own, ...answers.flatMap((answer) => (answer.kind === "kept" ? [answer.knows] : []))];
  const isSpokenFor = (agentId: string) => known.filter((knows) => knows.includes(agentId)).length > silentMax;
  if (silent.length <= silentMax && silent.every(isSpokenFor)) return { kind: "free" };
  return { kind: "inDoubt", agents: silent };
}
