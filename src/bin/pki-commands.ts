// `longshore pki`: a CA for a cluster, and certificates for its roles.
import { join } from "node:path";
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { systemDice } from "../base/dice.ts";
import { LongshoreError } from "../domain/errors.ts";
import { type Role, roles } from "../domain/identity.ts";
import type { KeyPairPem } from "../pki/certificate.ts";
import { initAuthority, issueInto, type PkiResult, readBundle, readIssued } from "../pki/folder.ts";
import { renderSecrets, secretPlaces } from "./pki-secrets.ts";
import type { Streams } from "./streams.ts";

const context = { clock: systemClock, dice: systemDice };

export function addPkiCommands(program: Command, streams: Streams): void {
  const pki = program.command("pki").description("Make a cluster's CA and the certificates of its roles.");
  pki
    .command("init")
    .description("Make the CA. Again for the same cluster it changes nothing.")
    .requiredOption("--dir <dir>", "folder to keep it in; the key in it must stay secret")
    .requiredOption("--cluster-name <name>", "name of the storage cluster, for people")
    .option("--cluster-uid <uid>", "identity of the cluster, for machines; a random one unless given")
    .action(async ({ dir, clusterName, clusterUid }: { dir: string; clusterName: string; clusterUid?: string }) =>
      say(streams, await initAuthority(dir, { clusterName, clusterUid }, context)),
    );
  pki
    .command("issue")
    .description("Issue a certificate. Again for the same role and names it keeps the one that is there.")
    .requiredOption("--dir <dir>", "folder with the CA")
    .requiredOption("--role <role>", roles.join(", "))
    .option("--san <name...>", "IP addresses and DNS names, for tools that look at them", [])
    .option("--days <days>", "how long it is valid", "90")
    .option("--name <name>", "name of the files; that of the role unless given")
    .option("--renew", "replace the certificate and the key that are there", false)
    .action(async (options: IssueOptions) => say(streams, await issue(options)));
  pki
    .command("secrets")
    .description("Print the Secrets that manifests/ expects, as YAML. Private keys are in it: apply it, or seal it.")
    .requiredOption("--dir <dir>", "folder with the certificates of the roles agent, operator and csi")
    .option("--ca <file>", "what they trust, old and new CA while one takes over; the folder's ca.crt unless given")
    .action(async (options: { dir: string; ca?: string }) => streams.out(await secretsOf(options)));
}

async function secretsOf({ dir, ca = join(dir, "ca.crt") }: { dir: string; ca?: string }): Promise<string> {
  const { caBundle } = await readBundle(ca);
  const certificates: Record<string, KeyPairPem> = {};
  for (const { role } of secretPlaces) certificates[role] ??= await readIssued(dir, role);
  return renderSecrets(certificates, caBundle);
}

interface IssueOptions {
  readonly dir: string;
  readonly role: string;
  readonly san: readonly string[];
  readonly days: string;
  readonly name?: string;
  readonly renew: boolean;
}

function issue({ dir, role, san, days, name = role, renew }: IssueOptions): Promise<PkiResult> {
  const names = san.flatMap((list) => list.split(",")).filter((one) => one !== "");
  return issueInto(dir, { role: roleOf(role), names, days: daysOf(days), name: fileNameOf(name), renew }, context);
}

function say(streams: Streams, { made, clusterUid, certFile, keyFile, validTo }: PkiResult): void {
  const what = made ? "made" : "already there, unchanged";
  streams.out(`${what}: ${certFile}, ${keyFile}\ncluster ${clusterUid}, valid to ${validTo.toISOString()}\n`);
}

function roleOf(word: string): Role {
  const role = roles.find((known) => known === word);
  if (role === undefined) throw new LongshoreError("BadRequest", `--role ${word}: use ${roles.join(", ")}`);
  return role;
}

function daysOf(text: string): number {
  const days = Number(text);
  if (Number.isInteger(days) && days >= 1 && days <= 3652) return days;
  throw new LongshoreError("BadRequest", `--days ${text}: use 1 to 3652`);
}

function fileNameOf(name: string): string {
  if (/^[a-z0-9][a-z0-9-]{0,62}$/.test(name) && name !== "ca") return name;
  throw new LongshoreError("BadRequest", `--name ${name}: use a-z, 0-9 and -, and not ca`);
}
