// A cluster's certificates as the Kubernetes Secrets that manifests/ mounts: what a person applies, or seals and keeps in Git.
import { stringify } from "yaml";
import { parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";
import { identityOf, type Role } from "../domain/identity.ts";
import type { KeyPairPem } from "../pki/certificate.ts";

export interface SecretPlace {
  readonly namespace: string;
  readonly name: string;
  /** Whose certificate it holds. */
  readonly role: Role;
}

/** The Secrets that manifests/ expects. */
export const secretPlaces: readonly SecretPlace[] = [
  { namespace: "longshore-system", name: "longshore-operator-pki", role: "operator" },
  { namespace: "longshore-system", name: "longshore-csi-pki", role: "csi" },
  { namespace: "longshore-node", name: "longshore-agent-pki", role: "agent" },
  { namespace: "longshore-node", name: "longshore-csi-pki", role: "csi" },
];

/**
 * All of them as one YAML stream. `certificates` has the pair of each role, `caBundle` the certificates that all of them trust.
 * Throws `BadRequest` for a certificate of another role than it is to be used for, or of another cluster than the others.
 */
export function renderSecrets(certificates: Readonly<Record<string, KeyPairPem>>, caBundle: string): string {
  const clusters = new Set<string>();
  const documents = secretPlaces.map(({ namespace, name, role }) => {
    const pair = certificates[role];
    const [certificate] = pair === undefined ? [] : parseCertificates(pair.cert, `the certificate for ${name}`);
    const identity = certificate && identityOf(certificate);
    if (pair === undefined || identity?.role !== role) {
      throw new LongshoreError(
        "BadRequest",
        `the certificate for ${name} is not of the role ${role}; replace it by: ${issue} --dir DIR --role ${role} --renew`,
      );
    }
    clusters.add(identity.clusterUid);
    const data = { "tls.crt": base64(pair.cert), "tls.key": base64(pair.key), "ca.crt": base64(caBundle) };
    const labels = { "app.kubernetes.io/part-of": "longshore" };
    const metadata = { name, namespace, labels };
    return stringify({ apiVersion: "v1", kind: "Secret", metadata, type: "kubernetes.io/tls", data }, { lineWidth: 0 });
  });
  if (clusters.size > 1) {
    throw new LongshoreError(
      "BadRequest",
      `the certificates are of several clusters, ${[...clusters].join(", ")}; replace each by: ${issue} --dir DIR --role ROLE --renew`,
    );
  }
  return documents.join("---\n");
}

const issue = "longshore pki issue";

function base64(text: string): string {
  return Buffer.from(text, "utf8").toString("base64");
}
