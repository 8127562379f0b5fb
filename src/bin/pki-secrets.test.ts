import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "@jest/globals";
import { parseAllDocuments } from "yaml";
import { seededDice } from "../base/dice.ts";
import { identityOf, type Role } from "../domain/identity.ts";
import { issueCertificate, type KeyPairPem, makeAuthority } from "../pki/certificate.ts";
import { renderSecrets } from "./pki-secrets.ts";

const nowMs = Date.UTC(2026, 0, 1);
const dice = seededDice(3);
const authority = await makeAuthority({ clusterName: "east", clusterUid: "uid-east" }, nowMs, dice);
const other = await makeAuthority({ clusterName: "west", clusterUid: "uid-west" }, nowMs, dice);

function issue(role: Role, from: KeyPairPem = authority, clusterUid = "uid-east"): Promise<KeyPairPem> {
  return issueCertificate(from, { clusterUid, role, names: [], days: 90 }, nowMs, dice);
}

const certificates = { operator: await issue("operator"), csi: await issue("csi"), agent: await issue("agent") };

interface Secret {
  readonly kind: string;
  readonly type: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly data: Readonly<Record<string, string>>;
}

const text = (value: string | undefined) => Buffer.from(value ?? "", "base64").toString("utf8");

function secrets(): Secret[] {
  return parseAllDocuments(renderSecrets(certificates, authority.cert)).map((document) => document.toJS() as Secret);
}

test("each place gets the certificate of its role, its key and the bundle, as a Secret that Kubernetes checks", () => {
  const found = secrets().map(({ kind, type, metadata, data }) => {
    expect([kind, type]).toEqual(["Secret", "kubernetes.io/tls"]);
    expect(text(data["tls.key"])).toContain("PRIVATE KEY");
    expect(text(data["ca.crt"])).toBe(authority.cert);
    const role = identityOf(new X509Certificate(text(data["tls.crt"])))?.role;
    return `${metadata.namespace}/${metadata.name} ${role}`;
  });
  expect(found).toEqual([
    "longshore-system/longshore-operator-pki operator",
    "longshore-system/longshore-csi-pki csi",
    "longshore-node/longshore-agent-pki agent",
    "longshore-node/longshore-csi-pki csi",
  ]);
});

test("the authority's key is in none of them", () => {
  const all = secrets().flatMap(({ data }) => Object.values(data).map(text));
  expect(all.join("")).not.toContain(authority.key.trim());
});

describe("they are refused when a certificate is", () => {
  test("of another role", () => {
    expect(() => renderSecrets({ ...certificates, csi: certificates.agent }, authority.cert)).toThrow(
      "pki issue --dir DIR --role csi --renew",
    );
  });

  test("not there", () => {
    const { operator, csi } = certificates;
    expect(() => renderSecrets({ operator, csi }, authority.cert)).toThrow("pki issue --dir DIR --role agent --renew");
  });

  test("of another cluster", async () => {
    const agent = await issue("agent", other, "uid-west");
    expect(() => renderSecrets({ ...certificates, agent }, authority.cert)).toThrow(
      "several clusters, uid-east, uid-west; replace each by",
    );
  });
});
