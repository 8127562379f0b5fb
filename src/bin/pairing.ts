// What one cluster tells another about itself: a block of text that a person pastes from one terminal into another.
// It is readable on purpose: whoever pastes it gives away trust, and should be able to see to whom.
import { createHash } from "node:crypto";
import { parse, stringify } from "yaml";
import type { MigrationLocation, MigrationLocationSpec } from "../api/migration-location.ts";
import type { MigrationSource, MigrationSourceSpec } from "../api/migration-source.ts";
import { parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";

export interface Pairing {
  readonly clusterName: string;
  readonly clusterUid: string;
  /** host:port of its agents; none for a cluster that only sends. */
  readonly seeds: readonly string[];
  readonly caBundle: string;
}

const firstLine = "# ---- BEGIN LONGSHORE PAIRING ----";
const lastLine = "# ---- END LONGSHORE PAIRING ----";

export function renderPairing(pairing: Pairing): string {
  const body = stringify({ ...pairing, digest: digestOf(pairing) }, { lineWidth: 0 });
  return `${firstLine}\n${body}${lastLine}\n`;
}

/** Reads a block wherever it stands in a text. `BadRequest` when it is not whole, or was damaged on the way. */
export function parsePairing(text: string): Pairing {
  const lines = text.split(/\r?\n/).map((line) => line.trimEnd());
  const [begin, end] = [lines.indexOf(firstLine), lines.indexOf(lastLine)];
  if (begin === -1 || end < begin)
    throw new LongshoreError(
      "BadRequest",
      "there is no whole pairing in the input; paste all that pair export printed",
    );
  const fields = fieldsOf(lines.slice(begin + 1, end).join("\n"));
  const pairing = pairingOf(fields);
  if (fields.digest !== digestOf(pairing))
    throw new LongshoreError(
      "BadRequest",
      "the pairing was changed on the way: its digest is another; export it again",
    );
  parseCertificates(pairing.caBundle, "the pairing's caBundle");
  return pairing;
}

/** The object that lets volumes migrate to the cluster. */
export function locationOf(pairing: Pairing, name: string): Manifest<MigrationLocation, MigrationLocationSpec> {
  const { clusterName, clusterUid, seeds, caBundle } = pairing;
  if (seeds.length === 0)
    throw new LongshoreError(
      "BadRequest",
      `cluster ${clusterName} was exported without --seeds, so nobody can connect to it; export it again with them`,
    );
  const spec = { clusterName, clusterUid, seeds, caBundle };
  return { apiVersion: "longshore.dev/v1", kind: "MigrationLocation", metadata: { name }, spec };
}

/** The object that consents to take the cluster's volumes. */
export function sourceOf(
  pairing: Pairing,
  name: string,
  quota?: string,
): Manifest<MigrationSource, MigrationSourceSpec> {
  const { clusterName, clusterUid, caBundle } = pairing;
  const spec = { clusterName, clusterUid, caBundle, ...(quota !== undefined && { quota: { bytes: quota } }) };
  return { apiVersion: "longshore.dev/v1", kind: "MigrationSource", metadata: { name }, spec };
}

export type Manifest<T extends { apiVersion: string; kind: string }, S> = Pick<T, "apiVersion" | "kind"> & {
  readonly metadata: { readonly name: string };
  readonly spec: S;
};

/** What people compare over the telephone: the SHA-256 fingerprints of the CAs. */
export function fingerprints(pairing: Pairing): string[] {
  return parseCertificates(pairing.caBundle, "caBundle").map(({ fingerprint256 }) => fingerprint256);
}

function digestOf({ clusterName, clusterUid, seeds, caBundle }: Pairing): string {
  const certificates = parseCertificates(caBundle, "caBundle").map((certificate) => certificate.fingerprint256);
  return createHash("sha256")
    .update(JSON.stringify([clusterName, clusterUid, seeds, certificates]))
    .digest("hex");
}

function fieldsOf(yaml: string): Readonly<Record<string, unknown>> {
  try {
    const fields: unknown = parse(yaml);
    if (typeof fields === "object" && fields !== null) return fields as Record<string, unknown>;
  } catch (cause) {
    throw new LongshoreError("BadRequest", "the pairing cannot be read; paste it as it was printed", { cause });
  }
  throw new LongshoreError("BadRequest", "the pairing is empty; paste it as it was printed");
}

function pairingOf({ clusterName, clusterUid, seeds, caBundle }: Readonly<Record<string, unknown>>): Pairing {
  const text = (value: unknown, name: string) => {
    if (typeof value === "string" && value !== "") return value;
    throw new LongshoreError("BadRequest", `the pairing lacks ${name}; export it again`);
  };
  const list = Array.isArray(seeds) ? seeds.map((seed) => text(seed, "a seed")) : [];
  return {
    clusterName: text(clusterName, "clusterName"),
    clusterUid: text(clusterUid, "clusterUid"),
    seeds: list,
    caBundle: text(caBundle, "caBundle"),
  };
}
