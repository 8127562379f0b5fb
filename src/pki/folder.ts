// A folder with a cluster's authority and certificates, as `longshore pki` keeps it: ca.crt, ca.key, <role>.crt, <role>.key.
// Nothing in it is ever overwritten unasked: a CA made anew would lock out all who trust the old one.
import { X509Certificate } from "node:crypto";
import { link, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import { unlessErrno } from "../base/system-error.ts";
import { parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";
import { authorityClusterUid, isClusterUid, type Role } from "../domain/identity.ts";
import type { KeyPairPem } from "./certificate.ts";

export interface PkiContext {
  readonly clock: Pick<Clock, "nowMs">;
  readonly dice: Dice;
}

/** What a call found or made; the paths are those of the certificate and its key. */
export interface PkiResult {
  readonly made: boolean;
  readonly clusterUid: string;
  readonly certFile: string;
  readonly keyFile: string;
  readonly validTo: Date;
}

/** Makes the authority. Repeated for the same cluster it changes nothing; for another one it is `NameTaken`. */
export async function initAuthority(
  dir: string,
  cluster: { clusterName: string; clusterUid?: string | undefined },
  context: PkiContext,
): Promise<PkiResult> {
  const present = await readPair(dir, "ca");
  if (present !== undefined) return sameAuthority(dir, present, cluster);
  const clusterUid = cluster.clusterUid ?? context.dice.uuid();
  checkCluster(cluster.clusterName, clusterUid);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { makeAuthority } = await import("./certificate.ts");
  const made = await makeAuthority(
    { clusterName: cluster.clusterName, clusterUid },
    context.clock.nowMs(),
    context.dice,
  );
  await writePair(dir, "ca", made);
  return resultOf(dir, "ca", made, clusterUid, true);
}

/**
 * Issues a certificate under the file name `request.name`. A present one for the same role and hosts with more than a
 * third of `days` left is kept; any other is `NameTaken`, unless `renew`: then it is replaced, certificate and key.
 */
export async function issueInto(
  dir: string,
  request: { role: Role; names: readonly string[]; days: number; name: string; renew: boolean },
  context: PkiContext,
): Promise<PkiResult> {
  const authority = await readAuthority(dir);
  const present = await readPair(dir, request.name);
  const nowMs = context.clock.nowMs();
  const { clusterUid } = authority;
  const { issueCertificate } = await import("./certificate.ts");
  const made = await issueCertificate(authority.pair, { ...request, clusterUid }, nowMs, context.dice);
  if (present === undefined) await writePair(dir, request.name, made);
  else if (request.renew) await replacePair(dir, request.name, made);
  else return keptOrRefused(dir, request, { present, wanted: made, clusterUid, nowMs });
  return resultOf(dir, request.name, made, clusterUid, true);
}

/** The certificate and key issued under the file name `name`; `BadRequest` when there are none. */
export async function readIssued(dir: string, name: string): Promise<KeyPairPem> {
  const pair = await readPair(dir, name);
  if (pair !== undefined) return pair;
  const command = `longshore pki issue --dir ${dir} --role ${name}`;
  throw new LongshoreError("BadRequest", `there is no certificate ${name} in ${dir}; make one by: ${command}`);
}

/** The folder's authority; `BadRequest` when there is none. */
export async function readAuthority(
  dir: string,
): Promise<{ pair: KeyPairPem; clusterUid: string; clusterName: string }> {
  const pair = await readPair(dir, "ca");
  if (pair === undefined)
    throw new LongshoreError("BadRequest", `there is no CA in ${dir}; make one by: longshore pki init --dir ${dir}`);
  const certificate = new X509Certificate(pair.cert);
  const clusterUid = authorityClusterUid(certificate);
  if (clusterUid === undefined)
    throw new LongshoreError("BadRequest", `${join(dir, "ca.crt")} names no cluster; it was not made by longshore pki`);
  return { pair, clusterUid, clusterName: clusterNameOf(certificate) };
}

/**
 * A cluster's name, UID and CA certificates from a PEM file alone, no key needed. The file may hold several, as it does
 * while one CA takes over from another, but of one cluster; whatever else is in it stays out of `caBundle`. `BadRequest`
 * without the file, and when it is not what it should be.
 */
export async function readBundle(file: string): Promise<{ clusterName: string; clusterUid: string; caBundle: string }> {
  const text = await textOf(file);
  if (text === undefined)
    throw new LongshoreError("BadRequest", `there is no file ${file}; give the ca.crt that longshore pki init made`);
  const found = parseCertificates(text, file).map((certificate) => ({
    clusterUid: authorityClusterUid(certificate),
    clusterName: clusterNameOf(certificate),
    pem: certificate.toString(),
  }));
  const [first, ...more] = found;
  assert(first !== undefined, "a text without certificates is refused before");
  const { clusterUid, clusterName } = first;
  if (clusterUid === undefined || more.some((other) => other.clusterUid === undefined))
    throw new LongshoreError("BadRequest", `${file} names no cluster; give the ca.crt that longshore pki init made`);
  if (more.some((other) => other.clusterUid !== clusterUid || other.clusterName !== clusterName))
    throw new LongshoreError("BadRequest", `${file} holds the CAs of several clusters; give a file for each`);
  return { clusterName, clusterUid, caBundle: found.map(({ pem }) => pem).join("") };
}

function clusterNameOf(certificate: X509Certificate): string {
  return certificate.subject.replace(/^CN=/, "").replace(/ CA$/, "");
}

function checkCluster(name: string, uid: string): void {
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name))
    throw new LongshoreError("BadRequest", `--cluster-name ${name}: use up to 63 of a-z, 0-9 and -, not - at the ends`);
  if (!isClusterUid(uid))
    throw new LongshoreError("BadRequest", `--cluster-uid ${uid}: use up to 63 of a-z, 0-9 and -`);
}

function sameAuthority(
  dir: string,
  present: KeyPairPem,
  wanted: { clusterName: string; clusterUid?: string | undefined },
): PkiResult {
  const certificate = new X509Certificate(present.cert);
  const clusterUid = authorityClusterUid(certificate) ?? "";
  const sameUid = wanted.clusterUid === undefined || wanted.clusterUid === clusterUid;
  if (!sameUid || clusterNameOf(certificate) !== wanted.clusterName)
    throw new LongshoreError(
      "NameTaken",
      `${dir} holds the CA of another cluster (${certificate.subject}, ${clusterUid})`,
    );
  return resultOf(dir, "ca", present, clusterUid, false);
}

function keptOrRefused(
  dir: string,
  request: { name: string; days: number },
  facts: { present: KeyPairPem; wanted: KeyPairPem; clusterUid: string; nowMs: number },
): PkiResult {
  const present = new X509Certificate(facts.present.cert);
  const sameNames = present.subjectAltName === new X509Certificate(facts.wanted.cert).subjectAltName;
  const leftDays = (present.validToDate.getTime() - facts.nowMs) / (24 * 3_600_000);
  if (sameNames && leftDays > request.days / 3)
    return resultOf(dir, request.name, facts.present, facts.clusterUid, false);
  const why = sameNames ? `has ${Math.max(0, Math.floor(leftDays))} days left` : `is for ${present.subjectAltName}`;
  throw new LongshoreError("NameTaken", `${join(dir, `${request.name}.crt`)} exists and ${why}; --renew replaces it`);
}

function resultOf(dir: string, name: string, pair: KeyPairPem, clusterUid: string, made: boolean): PkiResult {
  const files = { certFile: join(dir, `${name}.crt`), keyFile: join(dir, `${name}.key`) };
  return { made, clusterUid, ...files, validTo: new X509Certificate(pair.cert).validToDate };
}

async function readPair(dir: string, name: string): Promise<KeyPairPem | undefined> {
  const [cert, key] = await Promise.all([textOf(join(dir, `${name}.crt`)), textOf(join(dir, `${name}.key`))]);
  if (cert === undefined && key === undefined) return undefined;
  if (cert !== undefined && key !== undefined) return { cert, key };
  const [there, missing] = cert === undefined ? ["key", "crt"] : ["crt", "key"];
  const advice = `remove ${name}.${there} or bring ${name}.${missing} back`;
  throw new LongshoreError("BadRequest", `${dir} holds ${name}.${there} without ${name}.${missing}: ${advice}`);
}

async function textOf(file: string): Promise<string | undefined> {
  try {
    return await unlessErrno(["ENOENT"], () => readFile(file, "utf8"));
  } catch (cause) {
    throw new LongshoreError("BadRequest", `cannot read ${file}`, { cause });
  }
}

/** Whole files only, under names that were free: two who make the same at once do not mix their halves. */
async function writePair(dir: string, name: string, pair: KeyPairPem): Promise<void> {
  for (const [ending, text] of endings(pair)) {
    const file = join(dir, `${name}.${ending}`);
    const whole = await wholeFile(file, text, ending);
    try {
      await link(whole, file);
    } catch (cause) {
      throw new LongshoreError("NameTaken", `${file} appeared meanwhile and is not overwritten`, { cause });
    } finally {
      await rm(whole);
    }
  }
}

/** The key first: whoever reads in between finds a pair that does not fit, and keeps the one it has. */
async function replacePair(dir: string, name: string, pair: KeyPairPem): Promise<void> {
  for (const [ending, text] of endings(pair)) {
    const file = join(dir, `${name}.${ending}`);
    await rename(await wholeFile(file, text, ending), file);
  }
}

function endings(pair: KeyPairPem): [ending: "key" | "crt", text: string][] {
  return [
    ["key", pair.key],
    ["crt", pair.cert],
  ];
}

async function wholeFile(file: string, text: string, ending: "key" | "crt"): Promise<string> {
  const whole = `${file}.${process.pid}.tmp`;
  const handle = await open(whole, "w", ending === "key" ? 0o600 : 0o644);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return whole;
}
