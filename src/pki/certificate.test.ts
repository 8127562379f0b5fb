import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "@jest/globals";
import { seededDice } from "../base/dice.ts";
import { judgeChain, parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";
import { authorityClusterUid, identityOf, roles } from "../domain/identity.ts";
import { issueCertificate, type KeyPairPem, makeAuthority } from "./certificate.ts";

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
