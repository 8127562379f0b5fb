// Certificates for lane tests: each cluster with a CA of its own.
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { judgeChain, parseCertificates } from "../../src/domain/certificate-chain.ts";
import { identityOf } from "../../src/domain/identity.ts";
import { issueCertificate, type KeyPairPem, makeAuthority } from "../../src/pki/certificate.ts";
import type { Authorize } from "../../src/transfer/tls-peer.ts";

export interface TestCluster {
  readonly clusterUid: string;
  /** The CA's certificate. */
  readonly ca: string;
  /** A certificate of one of the cluster's agents, made `daysAgo` and good for a day. */
  issue(daysAgo?: number): Promise<KeyPairPem>;
}

/** Two of the same UID have different CAs: one of them is an impostor. */
export async function testCluster(clusterUid: string): Promise<TestCluster> {
  const nowMs = systemClock.nowMs();
  const dayMs = 24 * 3_600_000;
  const authority = await makeAuthority({ clusterName: clusterUid, clusterUid }, nowMs - 100 * dayMs, systemDice);
  const request = { clusterUid, role: "agent", names: [], days: 1 } as const;
  return {
    clusterUid,
    ca: authority.cert,
    issue: (daysAgo = 0) => issueCertificate(authority, request, nowMs - daysAgo * dayMs, systemDice),
  };
}

/** Believes a certificate that names a cluster only from that cluster's own CA. */
export function authorizeBy(clusters: readonly Pick<TestCluster, "clusterUid" | "ca">[]): Authorize {
  return (chain) => {
    const claimed = chain[0] && identityOf(chain[0]);
    const cluster = clusters.find(({ clusterUid }) => clusterUid === claimed?.clusterUid);
    if (cluster === undefined) return undefined;
    const verdict = judgeChain(chain, parseCertificates(cluster.ca, "the CA"), systemClock.nowMs());
    return verdict.kind === "trusted" ? { clusterUid: cluster.clusterUid } : undefined;
  };
}
