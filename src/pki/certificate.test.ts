import { createPrivateKey, generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto";
import { describe, expect, test } from "@jest/globals";
import { seededDice } from "../base/dice.ts";
import { judgeChain, parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";
import { authorityClusterUid, identityOf, roles } from "../domain/identity.ts";
import { extension, issueCertificate, type KeyPairPem, makeAuthority, signCertificate } from "./certificate.ts";
import { bits, implicit, isTrue, sequence } from "./der.ts";

const nowMs = Date.UTC(2026, 5, 1);
const dayMs = 24 * 3_600_000;
const dice = seededDice(1);
const cluster = { clusterName: "east", clusterUid: "uid-east" };
const authority = makeAuthority(cluster, nowMs, dice);
const bundle = parseCertificates(authority.cert, "the bundle");

function issued(fields: { role?: (typeof roles)[number]; names?: string[]; days?: number; by?: KeyPairPem } = {}) {
  const { role = "agent", names = [], days = 90, by = authority } = fields;
  return new X509Certificate(issueCertificate(by, { clusterUid: "uid-east", role, names, days }, nowMs, dice).cert);
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
  test.each(roles)("of role %s says so, and is trusted under its authority", (role) => {
    const certificate = issued({ role });
    expect(identityOf(certificate)).toEqual({ clusterUid: "uid-east", role });
    expect(judgeChain([certificate], bundle, nowMs)).toEqual({ kind: "trusted" });
  });

  test.each([
    ["10.1.2.3", "IP Address:10.1.2.3"],
    ["::1", "IP Address:0:0:0:0:0:0:0:1"],
    ["fd00::12:3", "IP Address:FD00:0:0:0:0:0:12:3"],
    ["::ffff:10.0.0.1", "IP Address:0:0:0:0:0:FFFF:A00:1"],
    ["node-1.example.org", "DNS:node-1.example.org"],
  ])("names the host %s", (name, shown) => {
    const certificate = issued({ names: [name] });
    expect(certificate.subjectAltName).toBe(`URI:longshore://cluster/uid-east/agent, ${shown}`);
  });

  test("does not take a name that is none", () => {
    expect(() => issued({ names: ["two words"] })).toThrow(LongshoreError);
  });

  test.each([
    ["before it begins", nowMs - dayMs, "refused"],
    ["within its days", nowMs + 89 * dayMs, "trusted"],
    ["after its days", nowMs + 91 * dayMs, "refused"],
  ])("%s is judged by the time: %p is %s", (_, atMs, kind) => {
    expect(judgeChain([issued()], bundle, atMs).kind).toBe(kind);
  });

  test("is valid past the year 2050 too", () => {
    expect(issued({ days: 40 * 365 }).validToDate.getUTCFullYear()).toBe(2066);
  });
});

describe("a chain is refused", () => {
  test("when another authority of the same name and cluster issued it", () => {
    const double = makeAuthority(cluster, nowMs, dice);
    expect(judgeChain([issued({ by: double })], bundle, nowMs).kind).toBe("refused");
  });

  test("when it is the CA itself, or empty", () => {
    expect(judgeChain(bundle, bundle, nowMs).kind).toBe("refused");
    expect(judgeChain([], bundle, nowMs).kind).toBe("refused");
  });

  test("when a certificate that is no CA issued it", () => {
    const leaf = issueCertificate(
      authority,
      { clusterUid: "uid-east", role: "agent", names: [], days: 1 },
      nowMs,
      dice,
    );
    const double = makeAuthority(cluster, nowMs, dice);
    const forged = issued({ by: { cert: double.cert, key: leaf.key } });
    expect(judgeChain([forged, new X509Certificate(leaf.cert)], bundle, nowMs).kind).toBe("refused");
  });
});

test("a text without certificates, or with a damaged one, is refused by name", () => {
  expect(() => parseCertificates("nothing", "caBundle")).toThrow("caBundle holds no PEM certificate");
  const damaged = authority.cert.replace(/\n.{10}/, "\nAAAAAAAAAA");
  expect(() => parseCertificates(damaged, "caBundle")).toThrow("certificate 1 of caBundle cannot be read");
});

describe("an intermediate CA that is sent along", () => {
  const root = { name: "east CA", key: createPrivateKey(authority.key) };
  const [middle, deeper] = [made("middle", root, "ca"), made("deeper", made("middle", root, "ca"), "ca")];
  const leaf = made("leaf", middle);

  test("is taken when the bundle's CA has issued it", () => {
    expect(judgeChain([leaf.certificate, middle.certificate], bundle, nowMs)).toEqual({ kind: "trusted" });
    expect(judgeChain([leaf.certificate, issued(), middle.certificate], bundle, nowMs).kind).toBe("trusted");
  });

  test("is needed, must be a CA, and must be of the bundle", () => {
    expect(judgeChain([leaf.certificate], bundle, nowMs).kind).toBe("refused");
    const noCa = made("plain", root);
    const under = made("under", noCa);
    expect(judgeChain([under.certificate, noCa.certificate], bundle, nowMs).kind).toBe("refused");
    const elsewhere = parseCertificates(makeAuthority(cluster, nowMs, dice).cert, "another bundle");
    expect(judgeChain([leaf.certificate, middle.certificate], elsewhere, nowMs).kind).toBe("refused");
    expect(judgeChain([leaf.certificate, middle.certificate, ...bundle], elsewhere, nowMs).kind).toBe("refused");
  });

  test("may not have another one below it, nor be out of date", () => {
    const chain = [made("low", deeper).certificate, deeper.certificate, middle.certificate];
    expect(judgeChain(chain, bundle, nowMs).kind).toBe("refused");
    const late = made("late", root, "ca", nowMs + 30 * dayMs);
    const under = made("under", late, undefined, nowMs);
    expect(judgeChain([under.certificate, late.certificate], bundle, nowMs).kind).toBe("refused");
    expect(judgeChain([under.certificate, late.certificate], bundle, nowMs + 31 * dayMs).kind).toBe("trusted");
  });
});

describe("whom a certificate speaks for", () => {
  const uri = (text: string) => implicit(6, Buffer.from(text, "latin1"));
  const dns = (text: string) => implicit(2, Buffer.from(text, "latin1"));
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
  ])("with %s", (_, names, whom) => {
    const root = { name: "east CA", key: createPrivateKey(authority.key) };
    const { certificate } = made("leaf", root, undefined, nowMs, [extension("2.5.29.17", sequence(...names))]);
    const identity = identityOf(certificate);
    expect(identity === undefined ? "nobody" : `${identity.role} of ${identity.clusterUid}`).toBe(whom);
  });
});

interface Party {
  readonly name: string;
  readonly key: KeyObject;
}

/** A certificate of any shape, issued by a key under a name. */
function made(name: string, issuer: Party, kind?: "ca", atMs = nowMs, more: readonly Buffer[] = []) {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ca = [
    extension("2.5.29.19", sequence(isTrue()), "critical"),
    extension("2.5.29.15", bits(Buffer.from([0x06]), 1), "critical"),
  ];
  const extensions = [...(kind === "ca" ? ca : []), ...more];
  const fields = { subject: name, issuer: issuer.name, publicKey, days: 90, extensions, nowMs: atMs, dice };
  return { name, key: privateKey, certificate: new X509Certificate(signCertificate(fields, issuer.key)) };
}
