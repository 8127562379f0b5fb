// Who is at the other end of a connection: decided anew for each request, by the certificate shown and by whom we trust
// at that moment, so a withdrawn consent ends at once, in the middle of a connection too.
import type { X509Certificate } from "node:crypto";
import { judgeChain, parseCertificates } from "../domain/certificate-chain.ts";
import { authorityClusterUid, type Identity, identityOf, type Role } from "../domain/identity.ts";

export type Caller =
  | { readonly kind: "anonymous" }
  | { readonly kind: "stranger"; readonly reason: string }
  | { readonly kind: "own"; readonly role: Role }
  | {
      readonly kind: "foreign";
      readonly role: Role;
      readonly source: string;
      readonly clusterName: string;
      readonly clusterUid: string;
    };

/** A foreign cluster whose volumes are taken. */
export interface ConsentedSource {
  readonly name: string;
  readonly clusterName: string;
  /** The cluster it is, as far as it is known. */
  readonly clusterUid: string | null;
  readonly caBundle: string;
}

export interface Trust {
  readonly clusterUid: string;
  /** PEM of our own cluster's CA. */
  readonly ca: string;
  readonly sources: readonly ConsentedSource[];
}

/** `chain`: the certificate shown and what was sent with it, leaf first; empty when none was shown. */
export function identifyCaller(chain: readonly X509Certificate[], trust: Trust, nowMs: number): Caller {
  const [leaf] = chain;
  if (leaf === undefined) return { kind: "anonymous" };
  const identity = identityOf(leaf);
  if (identity === undefined) return stranger("the certificate carries no URI name longshore://cluster/<uid>/<role>");
  if (identity.clusterUid !== trust.clusterUid) return foreignCaller(chain, identity, trust, nowMs);
  const verdict = judgeChain(chain, certificatesOf(trust.ca), nowMs);
  if (verdict.kind === "trusted") return { kind: "own", role: identity.role };
  return stranger(`the certificate claims to be of this cluster, but ${verdict.reason}`);
}

/**
 * A source known to be the cluster claimed is the only one that may speak for it. A source of which only the CA is
 * known may speak for any cluster that no other source is known to be.
 */
function foreignCaller(chain: readonly X509Certificate[], identity: Identity, trust: Trust, nowMs: number): Caller {
  const known = trust.sources.filter((source) => clusterUidOf(source) === identity.clusterUid);
  const candidates = known.length > 0 ? known : trust.sources.filter((source) => clusterUidOf(source) === null);
  let reason = "no MigrationSource is for it";
  for (const source of candidates) {
    const verdict = judgeChain(chain, certificatesOf(source.caBundle), nowMs);
    if (verdict.kind === "trusted") return foreign(source, identity);
    reason = `by MigrationSource ${source.name} ${verdict.reason}`;
  }
  return stranger(`the certificate is of cluster ${identity.clusterUid}, and ${reason}`);
}

function foreign({ name, clusterName }: ConsentedSource, { clusterUid, role }: Identity): Caller {
  return { kind: "foreign", role, source: name, clusterName, clusterUid };
}

/** As recorded, else as the CA of the bundle names it, when all of them name the same. */
function clusterUidOf(source: ConsentedSource): string | null {
  if (source.clusterUid !== null) return source.clusterUid;
  const named = new Set(certificatesOf(source.caBundle).map(authorityClusterUid));
  const [only] = named;
  return named.size === 1 && only !== undefined ? only : null;
}

const bundles = new Map<string, readonly X509Certificate[]>();
const bundlesMax = 1024;

/** A bundle that cannot be read trusts nobody. */
function certificatesOf(pem: string): readonly X509Certificate[] {
  const known = bundles.get(pem);
  if (known) return known;
  const parsed = parsedOrNone(pem);
  if (bundles.size >= bundlesMax) bundles.clear();
  bundles.set(pem, parsed);
  return parsed;
}

function parsedOrNone(pem: string): readonly X509Certificate[] {
  try {
    return parseCertificates(pem, "a CA bundle");
  } catch {
    return [];
  }
}

function stranger(reason: string): Caller {
  return { kind: "stranger", reason };
}
