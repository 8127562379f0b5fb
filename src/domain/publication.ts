// Which migrated volumes become VolumeSnapshots, where, and under which names: the first rule of a MigrationSource that
// matches a volume counts.

export interface PublicationRule {
  readonly sourceNamespaces?: readonly string[];
  readonly claimNames?: readonly string[];
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly namespace: string;
  /** `{claim}` and `{namespace}` stand for the claim's in the source cluster. */
  readonly name?: string;
  readonly snapshotClassName?: string;
}

/** The claim that the volume belonged to in the source cluster. */
export interface SourceClaim {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface Publication {
  readonly namespace: string;
  readonly name: string;
  readonly snapshotClassName?: string;
}

const nameLengthMax = 253;
const nameForm = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

export type PublicationDecision =
  | { readonly kind: "publish"; readonly publication: Publication }
  | { readonly kind: "none" }
  | { readonly kind: "invalid"; readonly message: string };

/** `claim` is `undefined` for a volume of which the source told nothing; only rules for all volumes match it, and name it. */
export function decidePublication(
  rules: readonly PublicationRule[],
  claim: SourceClaim | undefined,
): PublicationDecision {
  const rule = rules.find((each) => isMatch(each, claim));
  if (rule === undefined) return { kind: "none" };
  const template = rule.name ?? "{claim}";
  if (claim === undefined && template.includes("{")) {
    return { kind: "invalid", message: `the source told no claim, which the name ${template} speaks of` };
  }
  const name = template.replaceAll("{claim}", claim?.name ?? "").replaceAll("{namespace}", claim?.namespace ?? "");
  if (!nameForm.test(name) || name.length > nameLengthMax) {
    return { kind: "invalid", message: `"${name}" (${template}) cannot be the name of a VolumeSnapshot` };
  }
  const { namespace, snapshotClassName } = rule;
  return { kind: "publish", publication: { namespace, name, ...(snapshotClassName && { snapshotClassName }) } };
}

function isMatch({ sourceNamespaces, claimNames, matchLabels = {} }: PublicationRule, claim: SourceClaim | undefined) {
  const isAny = sourceNamespaces === undefined && claimNames === undefined && Object.keys(matchLabels).length === 0;
  if (claim === undefined) return isAny;
  return (
    (sourceNamespaces?.includes(claim.namespace) ?? true) &&
    (claimNames?.includes(claim.name) ?? true) &&
    Object.entries(matchLabels).every(([key, value]) => claim.labels[key] === value)
  );
}
