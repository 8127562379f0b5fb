// `longshore pair`: trust between two clusters in two pastes.
import { type Command, Option } from "commander";
import { stringify } from "yaml";
import { LongshoreError } from "../domain/errors.ts";
import { parseQuantity } from "../domain/quantity.ts";
import { readAuthority, readBundle } from "../pki/folder.ts";
import { fingerprints, locationOf, parsePairing, renderPairing, sourceOf } from "./pairing.ts";
import type { Streams } from "./streams.ts";

export function addPairCommands(program: Command, streams: Streams): void {
  const pair = program.command("pair").description("Tell one cluster about another, by copy and paste.");
  pair
    .command("export")
    .description("Print what another cluster has to know of this one: name, UID, CA and seeds. No secret is in it.")
    .option("--dir <dir>", "folder with this cluster's CA (longshore pki)")
    .addOption(
      new Option("--ca <file>", "or only its certificate, ca.crt; the CA's key is not needed").conflicts("dir"),
    )
    .option("--seeds <address...>", "host:port of agents, as the other cluster reaches them", [])
    .action(async ({ seeds, ...from }: ExportOptions) => {
      streams.out(renderPairing({ ...(await bundleOf(from)), seeds: seedsOf(seeds) }));
    });
  pair
    .command("import <name>")
    .description("Turn the other cluster's export, on standard input, into YAML for this one.")
    .requiredOption("--as <kind>", "location: volumes may migrate to it; source: its volumes are taken")
    .option("--quota <bytes>", "with --as source: how much is taken at most, such as 10Ti")
    .action(async (name: string, options: { as: string; quota?: string }) => {
      const pairing = parsePairing(await streams.input());
      const manifest = manifestOf(pairing, name, options);
      for (const print of fingerprints(pairing))
        streams.err(
          `CA of ${pairing.clusterName} (${pairing.clusterUid}): SHA-256 ${print}; compare it on the other side\n`,
        );
      streams.out(stringify(manifest, { lineWidth: 0 }));
    });
}

interface ExportOptions {
  readonly dir?: string;
  readonly ca?: string;
  readonly seeds: readonly string[];
}

async function bundleOf({ dir, ca }: Pick<ExportOptions, "dir" | "ca">) {
  if (ca !== undefined) return readBundle(ca);
  if (dir === undefined)
    throw new LongshoreError("BadRequest", "give --dir, the CA's folder, or --ca, its certificate");
  const { clusterName, clusterUid, pair } = await readAuthority(dir);
  return { clusterName, clusterUid, caBundle: pair.cert };
}

function manifestOf(
  pairing: ReturnType<typeof parsePairing>,
  name: string,
  { as, quota }: { as: string; quota?: string },
) {
  if (!/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(name))
    throw new LongshoreError("BadRequest", `${name} is not a name for a Kubernetes object: use a-z, 0-9, - and .`);
  if (quota !== undefined) parseQuantity(quota);
  if (as === "source") return sourceOf(pairing, name, quota);
  if (as !== "location") throw new LongshoreError("BadRequest", `--as ${as}: use location or source`);
  if (quota !== undefined) throw new LongshoreError("BadRequest", "--quota goes with --as source");
  return locationOf(pairing, name);
}

function seedsOf(lists: readonly string[]): string[] {
  const seeds = lists.flatMap((list) => list.split(",")).filter((one) => one !== "");
  const wrong = seeds.find((seed) => !/^([^\s/:]+|\[[0-9a-fA-F:]+\]):\d{1,5}$/.test(seed));
  if (wrong !== undefined) throw new LongshoreError("BadRequest", `--seeds ${wrong}: use host:port`);
  return seeds;
}
