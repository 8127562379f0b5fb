// Who a certificate speaks for: the URI name `longshore://cluster/<cluster uid>/<role>`, read and written in one place.
import type { X509Certificate } from "node:crypto";

/** The roles a certificate's URI name can carry. */
export const roles = ["agent", "operator", "csi", "admin"] as const;
export type Role = (typeof roles)[number];

export interface Identity {
  readonly clusterUid: string;
  readonly role: Role;
}

const clusterUidPattern = /^[a-z0-9-]{1,63}$/;
const uriPattern = /^longshore:\/\/cluster\/([a-z0-9-]{1,63})\/([a-z]{1,16})$/;

export function isClusterUid(text: string): boolean {
  return clusterUidPattern.test(text);
}

/** The URI name of an identity. The authority of a cluster itself has the role `ca`, which opens no door. */
export function renderIdentity(clusterUid: string, role: Role | "ca"): string {
  return `longshore://cluster/${clusterUid}/${role}`;
}

/** Who a certificate claims to speak for, `undefined` without exactly one URI name of ours. Says nothing of its validity. */
export function identityOf(certificate: X509Certificate): Identity | undefined {
  const match = soleUri(certificate);
  const role = roles.find((known) => known === match?.[2]);
  return match?.[1] === undefined || role === undefined ? undefined : { clusterUid: match[1], role };
}

/** The cluster an authority's own certificate names, `undefined` for one that was not made by `longshore pki init`. */
export function authorityClusterUid(certificate: X509Certificate): string | undefined {
  const match = soleUri(certificate);
  return certificate.ca && match?.[2] === "ca" ? match[1] : undefined;
}

/** Two names of ours in one certificate are as good as none: no reader could tell which one was meant. */
function soleUri(certificate: X509Certificate): RegExpExecArray | undefined {
  const ours = alternativeNames(certificate.subjectAltName ?? "").filter((name) => name.startsWith("URI:longshore:"));
  return ours.length === 1 ? (uriPattern.exec(String(ours[0]).slice("URI:".length)) ?? undefined) : undefined;
}

/**
 * Node.js renders the alternative names as one text and quotes those that hold a comma or a quote, so a name that only
 * looks like two must not be taken apart.
 */
function alternativeNames(text: string): string[] {
  return text.match(/(?:[^",]|"(?:[^"\\]|\\.)*")+/g)?.map((name) => name.trim()) ?? [];
}
