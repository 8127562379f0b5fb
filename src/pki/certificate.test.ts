import { createPrivateKey, generateKeyPairSync, type KeyObject, webcrypto, X509Certificate } from "node:crypto";
import "reflect-metadata";
import { describe, expect, test } from "@jest/globals";
import {
  BasicConstraintsExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  X509Certificate as PeculiarCertificate,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { seededDice } from "../base/dice.ts";
import { judgeChain, parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";
import { authorityClusterUid, identityOf, roles } from "../domain/identity.ts";
import { issueCertificate, type KeyPairPem, makeAuthority } from "./certificate.ts";

const nowMs = Date.UTC(2026, 5, 1);
const dayMs = 24 * 3_600_000;
const dice = seededDice(1);
const plain = { clusterUid: "uid-east", role: "agent", names: [], days: 1 } as const;
const ecdsa = { name: "ECDSA", namedCurve: "P-256" } as const;
const cluster = { clusterName: "east", clusterUid: "uid-east" };
const authority = await makeAuthority(cluster, nowMs, dice);
const bundle = parseCertificates(authority.cert, "the bundle");
const root = { name: "east CA", key: createPrivateKey(authority.key) };

async function issued(
  fields: { role?: (typeof roles)[number]; names?: string[]; days?: number; by?: KeyPairPem } = {},
) {
  const { role = "agent", names = [], days = 90, by = authority } = fields;
  const request = { clusterUid: "uid-east", role, names, days };
  return new X509Certificate((await issueCertificate(by, request, nowMs, dice)).cert);
}

describe("an authority", () => {
  test("is a CA of ten years that names its cluster and signs itself", () => {
    const certificate = new X509Certificate(authority.cert);
    expect(certificate.ca).toBe(true);
    expect(certificate.subject).toBe("CN=east CA");
    expect(authorityClusterUid(certificate)).toBe("uid-east");
    expect(identityOf(certificate)).toBeUndefined();
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(Math.round((certificate.validToDate.getTime() - nowMs) / dayMs)).toBe(3652);
  });
});

describe("an issued certificate", () => {
  test.each(roles)("of role %s says so, and is trusted under its authority", async (role) => {
    const certificate = await issued({ role });
    expect(identityOf(certificate)).toEqual({ clusterUid: "uid-east", role });
    expect(judgeChain([certificate], bundle, nowMs)).toEqual({ kind: "trusted" });
  });

  test.each([
    ["10.1.2.3", "IP Address:10.1.2.3"],
    ["::1", "IP Address:0:0:0:0:0:0:0:1"],
    ["fd00::12:3", "IP Address:FD00:0:0:0:0:0:12:3"],
    ["::ffff:10.0.0.1", "IP Address:0:0:0:0:0:FFFF:A00:1"],
    ["node-1.example.org", "DNS:node-1.example.org"],
  ])("names the host %s", async (name, shown) => {
    const certificate = await issued({ names: [name] });
    expect(certificate.subjectAltName).toBe(`URI:longshore://cluster/uid-east/agent, ${shown}`);
  });

  test.each(["two words", "", "-a", "fe80::1%eth0", "a.b, URI:x", "é.example"])(
    "does not take the name %p",
    async (name) => {
      await expect(issued({ names: [name] })).rejects.toThrow(LongshoreError);
    },
  );

  test("says in DER what RFC 5280 asks for: whole seconds, a positive serial, what is critical", async () => {
    const { raw } = new X509Certificate((await issueCertificate(authority, plain, nowMs + 123, dice)).cert);
    const certificate = new PeculiarCertificate(raw);
    expect(certificate.notAfter.getTime()).toBe(nowMs + dayMs);
    expect(certificate.serialNumber).toMatch(/^[4-7][0-9a-f]{31}$/);
    const critical = certificate.extensions.filter((one) => one.critical).map((one) => one.type);
    expect(critical).toEqual(["2.5.29.19", "2.5.29.15"]);
    expect(certificate.issuerName.toArrayBuffer()).toEqual(
      new PeculiarCertificate(authority.cert).subjectName.toArrayBuffer(),
    );
  });

  test("takes its serial from the dice", async () => {
    const serials = [1, 1, 2].map(async (seed) => {
      const { cert } = await issueCertificate(authority, plain, nowMs, seededDice(seed));
      return new X509Certificate(cert).serialNumber;
    });
    const [first, same, other] = await Promise.all(serials);
    expect(same).toBe(first);
    expect(other).not.toBe(first);
  });

  test.each([
    ["of another curve", () => generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey],
    ["of another kind", () => generateKeyPairSync("ed25519").privateKey],
  ])("is not made with a CA key %s", async (_, make) => {
    const key = make().export({ type: "pkcs8", format: "pem" }).toString();
    await expect(issued({ by: { cert: authority.cert, key } })).rejects.toMatchObject({ code: "BadRequest" });
  });

  test.each([
    ["before it begins", nowMs - dayMs, "refused"],
    ["within its days", nowMs + 89 * dayMs, "trusted"],
    ["after its days", nowMs + 91 * dayMs, "refused"],
  ])("%s is judged by the time: %p is %s", async (_, atMs, kind) => {
    expect(judgeChain([await issued()], bundle, atMs).kind).toBe(kind);
  });

  test("is valid past the year 2050 too", async () => {
    expect((await issued({ days: 40 * 365 })).validToDate.getUTCFullYear()).toBe(2066);
  });
});

describe("a chain is refused", () => {
  test("when another authority of the same name and cluster issued it", async () => {
    const double = await makeAuthority(cluster, nowMs, dice);
    expect(judgeChain([await issued({ by: double })], bundle, nowMs).kind).toBe("refused");
  });

  test("when it is the CA itself, or empty", () => {
    expect(judgeChain(bundle, bundle, nowMs).kind).toBe("refused");
    expect(judgeChain([], bundle, nowMs).kind).toBe("refused");
  });

  test("when a certificate that is no CA issued it", async () => {
    const leaf = await issueCertificate(
      authority,
      { clusterUid: "uid-east", role: "agent", names: [], days: 1 },
      nowMs,
      dice,
    );
    const double = await makeAuthority(cluster, nowMs, dice);
    const forged = await issued({ by: { cert: double.cert, key: leaf.key } });
    expect(judgeChain([forged, new X509Certificate(leaf.cert)], bundle, nowMs).kind).toBe("refused");
  });
});

test("a text without certificates, or with a damaged one, is refused by name", () => {
  expect(() => parseCertificates("nothing", "caBundle")).toThrow("caBundle holds no PEM certificate");
  const damaged = authority.cert.replace(/\n.{10}/, "\nAAAAAAAAAA");
  expect(() => parseCertificates(damaged, "caBundle")).toThrow("certificate 1 of caBundle cannot be read");
});

const middle = await made("middle", root, "ca");
const deeper = await made("deeper", middle, "ca");
const leaf = await made("leaf", middle);

describe("an intermediate CA that is sent along", () => {
  test("is taken when the bundle's CA has issued it", async () => {
    expect(judgeChain([leaf.certificate, middle.certificate], bundle, nowMs)).toEqual({ kind: "trusted" });
    expect(judgeChain([leaf.certificate, await issued(), middle.certificate], bundle, nowMs).kind).toBe("trusted");
  });

  test("is needed, must be a CA, and must be of the bundle", async () => {
    expect(judgeChain([leaf.certificate], bundle, nowMs).kind).toBe("refused");
    const noCa = await made("plain", root);
    const under = await made("under", noCa);
    expect(judgeChain([under.certificate, noCa.certificate], bundle, nowMs).kind).toBe("refused");
    const elsewhere = parseCertificates((await makeAuthority(cluster, nowMs, dice)).cert, "another bundle");
    expect(judgeChain([leaf.certificate, middle.certificate], elsewhere, nowMs).kind).toBe("refused");
    expect(judgeChain([leaf.certificate, middle.certificate, ...bundle], elsewhere, nowMs).kind).toBe("refused");
  });

  test("may not have another one below it, nor be out of date", async () => {
    const chain = [(await made("low", deeper)).certificate, deeper.certificate, middle.certificate];
    expect(judgeChain(chain, bundle, nowMs).kind).toBe("refused");
    const late = await made("late", root, "ca", nowMs + 30 * dayMs);
    const under = await made("under", late, undefined, nowMs);
    expect(judgeChain([under.certificate, late.certificate], bundle, nowMs).kind).toBe("refused");
    expect(judgeChain([under.certificate, late.certificate], bundle, nowMs + 31 * dayMs).kind).toBe("trusted");
  });
});

describe("whom a certificate speaks for", () => {
  const uri = (value: string) => ({ type: "url", value }) as const;
  const dns = (value: string) => ({ type: "dns", value }) as const;
  const agent = "longshore://cluster/u/agent";

  test.each([
    ["one name", [uri(agent)], "agent of u"],
    ["among names of others", [dns("a.b"), uri("spiffe://x/y"), uri(agent)], "agent of u"],
    ["no name", [dns("a.b")], "nobody"],
    ["two names", [uri(agent), uri("longshore://cluster/v/admin")], "nobody"],
    ["the same name twice", [uri(agent), uri(agent)], "nobody"],
    ["a role that is none", [uri("longshore://cluster/u/king")], "nobody"],
    ["the role of a CA", [uri("longshore://cluster/u/ca")], "nobody"],
    ["more after the role", [uri(`${agent}/x`)], "nobody"],
    ["a line break after the role", [uri(`${agent}\n`)], "nobody"],
    ["another kind of name that only looks like it", [dns(`a, URI:${agent}`)], "nobody"],
    ["a name with one hidden in it", [uri(agent), dns("a, URI:longshore://cluster/v/admin")], "agent of u"],
    ["a name with a quote", [dns(`a", URI:${agent}, DNS:"b`)], "nobody"],
    ["a name as a DNS name", [dns(`URI:${agent}`)], "nobody"],
    ["capitals", [uri("longshore://cluster/U/agent")], "nobody"],
  ])("with %s", async (_, names, whom) => {
    const { certificate } = await made("leaf", root, undefined, nowMs, [new SubjectAlternativeNameExtension(names)]);
    const identity = identityOf(certificate);
    expect(identity === undefined ? "nobody" : `${identity.role} of ${identity.clusterUid}`).toBe(whom);
  });
});

interface Party {
  readonly name: string;
  readonly key: KeyObject;
}

/** A certificate of any shape, issued by a key under a name. */
async function made(name: string, issuer: Party, kind?: "ca", atMs = nowMs, more: readonly Extension[] = []) {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ca = [
    new BasicConstraintsExtension(true, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
  ];
  const certificate = await X509CertificateGenerator.create(
    {
      subject: new Name([{ CN: [{ utf8String: name }] }]),
      issuer: new Name([{ CN: [{ utf8String: issuer.name }] }]),
      publicKey: publicKey.toCryptoKey(ecdsa, true, ["verify"]),
      signingKey: issuer.key.toCryptoKey(ecdsa, false, ["sign"]),
      signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
      serialNumber: `40${dice.hex(15)}`,
      notBefore: new Date(atMs - 60_000),
      notAfter: new Date(atMs + 90 * dayMs),
      extensions: [...(kind === "ca" ? ca : []), ...more],
    },
    webcrypto,
  );
  return { name, key: privateKey, certificate: new X509Certificate(Buffer.from(certificate.rawData)) };
}
