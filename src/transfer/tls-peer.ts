// What both ends of a tls lane have in common: who we are and who the other side is.
import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";

/** Our own certificate and key, as PEM texts of now; asked for at every connection, so a rotation needs no call. */
export interface LaneCredentials {
  current(): { readonly cert: string; readonly key: string };
}

/**
 * Whose certificate this is, `undefined` for one that may not use lanes. The chain was verified against what `trust()`
 * gave; leaf first, issuers after it as far as they are known. It must check that the leaf's issuer may speak for
 * the cluster it names: trust holds the CAs of many clusters.
 */
export type Authorize = (chain: readonly X509Certificate[]) => { readonly clusterUid: string } | undefined;

/** What a connection needs to show and to judge certificates, as PEM texts. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  readonly ca: string[];
}

/**
 * TLS 1.3 alone. Machines with instructions for AES, which are nearly all, do AES-128-GCM the fastest; the others follow, for
 * a peer that lacks it.
 */
export const tlsSettings = {
  minVersion: "TLSv1.3",
  maxVersion: "TLSv1.3",
  ciphers: "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
} as const;

/** A peer that vanished without a word is noticed by probes after this time without traffic. */
export const keepAliveMs = 15_000;

const chainMax = 8;

/** The certificate the peer proved to hold, and what Node.js found above it; which of that may be believed is decided from bundles alone. */
export function peerChain(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = [];
  let certificate = socket.getPeerX509Certificate();
  while (certificate !== undefined && chain.length < chainMax && !isAmong(certificate, chain)) {
    chain.push(certificate);
    certificate = certificate.issuerCertificate;
  }
  return chain;
}

function isAmong(certificate: X509Certificate, chain: readonly X509Certificate[]): boolean {
  return chain.some((other) => other.fingerprint256 === certificate.fingerprint256);
}
