// Makes a cluster's authority and the certificates of its roles: ECDSA P-256, X.509 version 3.
// The library needs a polyfill of the global Reflect, and a third of a second to load: whoever only reads certificates
// does without this file (node:crypto reads them), and folder.ts loads it when a certificate is to be made.
import "reflect-metadata";
import { createPrivateKey, KeyObject, webcrypto } from "node:crypto";
import { isIP } from "node:net";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  type JsonGeneralName,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { assert } from "../base/assert.ts";
import type { Dice } from "../base/dice.ts";
import { parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";
import { authorityClusterUid, type Role, renderIdentity } from "../domain/identity.ts";

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyPairPem {
  readonly cert: string;
  readonly key: string;
}

const dayMs = 24 * 3_600_000;
/** Machines' clocks differ a little: a certificate is valid from just before it was made. */
const backdatedMs = 5 * 60_000;
const authorityDays = 3652;
const keyAlgorithm = { name: "ECDSA", namedCurve: "P-256" } as const;

/** Makes a self-signed authority for a cluster, valid for ten years; it carries the cluster's UID. */
export async function makeAuthority(
  cluster: { clusterName: string; clusterUid: string },
  nowMs: number,
  dice: Dice,
): Promise<KeyPairPem> {
  const keys = await newKeys();
  const name = nameOf(`${cluster.clusterName} CA`);
  const extensions = [
    new BasicConstraintsExtension(true, 0, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
    new SubjectAlternativeNameExtension([{ type: "url", value: renderIdentity(cluster.clusterUid, "ca") }]),
  ];
  const times = { nowMs, days: authorityDays, dice };
  const fields = { subject: name, issuer: name, publicKey: keys.publicKey, extensions, ...times };
  return { cert: await signed(fields, keys.privateKey), key: pemOf(keys.privateKey) };
}

/**
 * Issues a certificate for one role of the authority's cluster. `names`: DNS names and IP addresses, for other tools.
 * `BadRequest` for a name that is neither, and for an authority's key that cannot sign.
 */
export async function issueCertificate(
  authority: KeyPairPem,
  request: { clusterUid: string; role: Role; names: readonly string[]; days: number },
  nowMs: number,
  dice: Dice,
): Promise<KeyPairPem> {
  const [parsed] = parseCertificates(authority.cert, "the CA");
  assert(parsed !== undefined && authorityClusterUid(parsed) === request.clusterUid, "a CA issues for its own cluster");
  const issuer = new X509Certificate(parsed.raw);
  const identity: JsonGeneralName = { type: "url", value: renderIdentity(request.clusterUid, request.role) };
  const names = [identity, ...request.names.map(hostName)];
  const signingKey = signingKeyOf(authority.key);
  const keys = await newKeys();
  const extensions = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
    await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
    await AuthorityKeyIdentifierExtension.create(issuer.publicKey, false, webcrypto),
    new SubjectAlternativeNameExtension(names),
  ];
  const parties = { subject: nameOf(`longshore ${request.role}`), issuer: issuer.subjectName };
  const fields = { ...parties, publicKey: keys.publicKey, extensions, days: request.days, nowMs, dice };
  return { cert: await signed(fields, signingKey), key: pemOf(keys.privateKey) };
}

interface CertificateFields {
  readonly subject: Name;
  readonly issuer: Name;
  readonly publicKey: webcrypto.CryptoKey;
  readonly extensions: Extension[];
  readonly days: number;
  readonly nowMs: number;
  readonly dice: Dice;
}

async function signed({ days, nowMs, dice, ...fields }: CertificateFields, signingKey: webcrypto.CryptoKey) {
  // The top bit is cleared and the next one set: 126 random bits, always positive, never zero.
  const serial = Buffer.from(dice.hex(16), "hex");
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const validity = { notBefore: new Date(nowMs - backdatedMs), notAfter: new Date(nowMs + days * dayMs) };
  const params = { ...fields, ...validity, serialNumber: serial.toString("hex"), signingKey };
  const certificate = await X509CertificateGenerator.create(
    { ...params, signingAlgorithm: { name: "ECDSA", hash: "SHA-256" } },
    webcrypto,
  );
  return `${certificate.toString("pem")}\n`;
}

/** Given as parts, never as text to be parsed: what looks like another part of a name stays in the common name. */
function nameOf(commonName: string): Name {
  return new Name([{ CN: [{ utf8String: commonName }] }]);
}

function hostName(name: string): JsonGeneralName {
  if (isIP(name) === 4) return { type: "ip", value: name };
  // The library does not know an embedded IPv4 part; the URL parser gives the form without one. An address with a zone
  // means something on one machine only, and is refused below.
  if (isIP(name) === 6 && !name.includes("%"))
    return { type: "ip", value: new URL(`http://[${name}]`).hostname.slice(1, -1) };
  if (!/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(name))
    throw new LongshoreError("BadRequest", `not an IP address and not a DNS name: ${name}`);
  return { type: "dns", value: name };
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
}

function signingKeyOf(pem: string): webcrypto.CryptoKey {
  try {
    return createPrivateKey(pem).toCryptoKey(keyAlgorithm, false, ["sign"]);
  } catch (cause) {
    throw new LongshoreError("BadRequest", "the CA's key is not an ECDSA P-256 key in PEM", { cause });
  }
}

function pemOf(key: webcrypto.CryptoKey): string {
  return KeyObject.from(key).export({ type: "pkcs8", format: "pem" }).toString();
}
