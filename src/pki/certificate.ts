// Makes a cluster's authority and the certificates of its roles: ECDSA P-256, X.509 version 3.
// A certificate here has one fixed shape, which a page of DER writes; libraries for it drag in a polyfill of globals.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  X509Certificate,
} from "node:crypto";
import { isIP } from "node:net";
import { assert } from "../base/assert.ts";
import type { Dice } from "../base/dice.ts";
import { LongshoreError } from "../domain/errors.ts";
import { authorityClusterUid, type Role, renderIdentity } from "../domain/identity.ts";
import { bits, implicit, integer, isTrue, objectId, octets, sequence, set, tagged, time, utf8 } from "./der.ts";

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyPairPem {
  readonly cert: string;
  readonly key: string;
}

const dayMs = 24 * 3_600_000;
/** Machines' clocks differ a little: a certificate is valid from just before it was made. */
const backdatedMs = 5 * 60_000;
const authorityDays = 3652;

const ecdsaWithSha256 = sequence(objectId("1.2.840.10045.4.3.2"));
const forServersAndClients = sequence(objectId("1.3.6.1.5.5.7.3.1"), objectId("1.3.6.1.5.5.7.3.2"));

/** Makes a self-signed authority for a cluster, valid for ten years; it carries the cluster's UID. */
export function makeAuthority(
  cluster: { clusterName: string; clusterUid: string },
  nowMs: number,
  dice: Dice,
): KeyPairPem {
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const name = `${cluster.clusterName} CA`;
  const extensions = [
    extension("2.5.29.19", sequence(isTrue(), integer(Buffer.from([0]))), "critical"),
    extension("2.5.29.15", bits(Buffer.from([0x06]), 1), "critical"),
    extension("2.5.29.14", octets(keyId(key.publicKey))),
    extension("2.5.29.17", sequence(uriName(renderIdentity(cluster.clusterUid, "ca")))),
  ];
  const fields = {
    subject: name,
    issuer: name,
    publicKey: key.publicKey,
    days: authorityDays,
    extensions,
    nowMs,
    dice,
  };
  return { cert: signCertificate(fields, key.privateKey), key: pemOf(key.privateKey) };
}

/** Issues a certificate for one role of the authority's cluster. `names`: DNS names and IP addresses, for other tools. */
export function issueCertificate(
  authority: KeyPairPem,
  request: { clusterUid: string; role: Role; names: readonly string[]; days: number },
  nowMs: number,
  dice: Dice,
): KeyPairPem {
  const issuer = new X509Certificate(authority.cert);
  assert(authorityClusterUid(issuer) === request.clusterUid, "an authority issues for its own cluster");
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const names = [uriName(renderIdentity(request.clusterUid, request.role)), ...request.names.map(hostName)];
  const extensions = [
    extension("2.5.29.19", sequence(), "critical"),
    extension("2.5.29.15", bits(Buffer.from([0x80]), 7), "critical"),
    extension("2.5.29.37", forServersAndClients),
    extension("2.5.29.14", octets(keyId(key.publicKey))),
    extension("2.5.29.35", sequence(implicit(0, keyId(issuer.publicKey)))),
    extension("2.5.29.17", sequence(...names)),
  ];
  const parties = { subject: `longshore ${request.role}`, issuer: subjectOf(authority) };
  const fields = { ...parties, publicKey: key.publicKey, days: request.days, extensions, nowMs, dice };
  return { cert: signCertificate(fields, createPrivateKey(authority.key)), key: pemOf(key.privateKey) };
}

/** What a certificate says; `subject` and `issuer` by their common names, `extensions` as DER. */
export interface CertificateFields {
  readonly subject: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly days: number;
  readonly extensions: readonly Buffer[];
  readonly nowMs: number;
  readonly dice: Dice;
}

/** Signs any certificate, PEM; what it says is the caller's business, tests of hostile ones included. */
export function signCertificate(
  { subject, issuer, publicKey, days, extensions, nowMs, dice }: CertificateFields,
  key: KeyObject,
): string {
  // The top bit is cleared and the next one set: 127 random bits, always positive, never zero.
  const serial = Buffer.from(dice.hex(16), "hex");
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const validity = sequence(time(nowMs - backdatedMs), time(nowMs + days * dayMs));
  const body = sequence(
    tagged(0, integer(Buffer.from([2]))),
    integer(serial),
    ecdsaWithSha256,
    nameOf(issuer),
    validity,
    nameOf(subject),
    publicKey.export({ type: "spki", format: "der" }),
    tagged(3, sequence(...extensions)),
  );
  const certificate = sequence(body, ecdsaWithSha256, bits(sign("sha256", body, key)));
  return pemText("CERTIFICATE", certificate);
}

/** The subject of the authority as it must stand in what it issues; its common name is the only part it has. */
function subjectOf(authority: KeyPairPem): string {
  const { subject } = new X509Certificate(authority.cert);
  const match = /^CN=([^\n]+)$/.exec(subject);
  if (match?.[1] === undefined)
    throw new LongshoreError("BadRequest", `the CA ${subject} was not made by longshore pki`);
  return match[1];
}

function nameOf(commonName: string): Buffer {
  return sequence(set(sequence(objectId("2.5.4.3"), utf8(commonName))));
}

export function extension(id: string, value: Buffer, critical?: "critical"): Buffer {
  return sequence(objectId(id), ...(critical ? [isTrue()] : []), octets(value));
}

function uriName(uri: string): Buffer {
  return implicit(6, Buffer.from(uri, "ascii"));
}

function hostName(name: string): Buffer {
  if (isIP(name) !== 0) return implicit(7, addressBytes(name));
  if (!/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(name))
    throw new LongshoreError("BadRequest", `not an IP address and not a DNS name: ${name}`);
  return implicit(2, Buffer.from(name, "ascii"));
}

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split(".").map(Number));
  // The URL parser gives IPv6 its canonical form, an embedded IPv4 part included.
  const [left = "", right] = new URL(`http://[${address}]`).hostname.slice(1, -1).split("::");
  const [head, tail] = [groupsOf(left), groupsOf(right ?? "")];
  const zeros = new Array<number>(8 - head.length - tail.length).fill(0);
  return Buffer.from([...head, ...zeros, ...tail].flatMap((group) => [group >> 8, group & 0xff]));
}

function groupsOf(text: string): number[] {
  return text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
}

/** The SHA-1 of the key's bits: the customary identifier, not a matter of security. */
function keyId(publicKey: KeyObject): Buffer {
  const { x = "", y = "" } = createPublicKey(publicKey.export({ type: "spki", format: "pem" })).export({
    format: "jwk",
  });
  const point = Buffer.concat([Buffer.from([4]), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")]);
  return createHash("sha1").update(point).digest();
}

function pemOf(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

function pemText(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}
