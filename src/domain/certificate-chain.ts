// Whether a certificate comes from one given CA bundle. Done here, per bundle and per use, and not by the TLS library's
// set of all trusted CAs: with one set, the CA of one cluster could speak for another one.
import { X509Certificate } from "node:crypto";
import { LongshoreError } from "./errors.ts";

export type ChainVerdict = { readonly kind: "trusted" } | { readonly kind: "refused"; readonly reason: string };

/** Certificates in a PEM text, in order; `BadRequest` naming `what` when there is none or one cannot be read. */
export function parseCertificates(pem: string, what: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new LongshoreError("BadRequest", `${what} holds no PEM certificate`);
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new LongshoreError("BadRequest", `certificate ${index + 1} of ${what} cannot be read`, { cause });
    }
  });
}

/**
 * Judges `chain` (the leaf first, then what else was sent) by a bundle of CA certificates at `nowMs`. At most one
 * intermediate is taken: what lies deeper belongs into the bundle. So no path length constraint can be overstepped by
 * anyone but the bundle's own CA.
 */
export function judgeChain(
  chain: readonly X509Certificate[],
  bundle: readonly X509Certificate[],
  nowMs: number,
): ChainVerdict {
  const [leaf, ...sent] = chain;
  if (leaf === undefined) return refused("there is no certificate");
  if (leaf.ca) return refused("it is the certificate of a CA");
  if (!isCurrent(leaf, nowMs)) return refused(`it is valid from ${leaf.validFrom} to ${leaf.validTo} only`);
  const authorities = [...bundle, ...sent.filter((middle) => bundle.some((root) => hasIssued(root, middle, nowMs)))];
  const issuer = authorities.find((authority) => hasIssued(authority, leaf, nowMs));
  return issuer === undefined ? refused("it was not issued by a CA of the bundle") : { kind: "trusted" };
}

function hasIssued(issuer: X509Certificate, subject: X509Certificate, nowMs: number): boolean {
  return issuer.ca && isCurrent(issuer, nowMs) && subject.checkIssued(issuer) && isSignedBy(subject, issuer);
}

/** Who has signed what never changes, and takes 0.2 ms to find out. Kept as long as both certificates are. */
const signatures = new WeakMap<X509Certificate, WeakMap<X509Certificate, boolean>>();

function isSignedBy(subject: X509Certificate, issuer: X509Certificate): boolean {
  const ofSubject = signatures.get(subject) ?? new WeakMap<X509Certificate, boolean>();
  signatures.set(subject, ofSubject);
  const known = ofSubject.get(issuer);
  if (known !== undefined) return known;
  const found = verifies(subject, issuer);
  ofSubject.set(issuer, found);
  return found;
}

/** A key of another kind than the signature's makes OpenSSL throw: that too is not a signature of this issuer. */
function verifies(subject: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return subject.verify(issuer.publicKey);
  } catch {
    return false;
  }
}

function isCurrent(certificate: X509Certificate, nowMs: number): boolean {
  return certificate.validFromDate.getTime() <= nowMs && nowMs <= certificate.validToDate.getTime();
}

function refused(reason: string): ChainVerdict {
  return { kind: "refused", reason };
}
