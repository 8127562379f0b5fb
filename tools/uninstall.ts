// Removes Longshore from the cluster that kubectl talks to, and leaves its data on the nodes: `node tools/uninstall.ts`. It goes by
// steps, tells each, and may be stopped and run again at any time. docs/install.md tells what stays, and how to come back to it.
import { X509Certificate } from "node:crypto";
import { parseArgs } from "node:util";
import { authorityClusterUid } from "../src/domain/identity.ts";
import { CommandError } from "./run-command.ts";
import { Cluster, Refusal } from "./uninstall/cluster.ts";
import type { KubeObject } from "./uninstall/decisions.ts";
import { steps } from "./uninstall/steps.ts";

const usage = `node tools/uninstall.ts [--dry-run] [--forget-snapshots] [--wait SECONDS]
  --dry-run            tell what would be done, and change nothing
  --forget-snapshots   remove VolumeSnapshots and VolumeGroupSnapshots that users took as objects; what they stand for stays
  --wait SECONDS       how long anything is waited for (120)`;

interface Wishes {
  readonly isDryRun: boolean;
  readonly forgetSnapshots: boolean;
  readonly waitMs: number;
}

function wishesOf(args: readonly string[]): Wishes {
  const { values } = parseArgs({
    args: [...args],
    options: {
      "dry-run": { type: "boolean", default: false },
      "forget-snapshots": { type: "boolean", default: false },
      wait: { type: "string", default: "120" },
    },
  });
  const seconds = Number(values.wait);
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > 86_400) {
    throw new Refusal(`--wait ${values.wait} is no number of seconds`, "use 1 to 86400");
  }
  return { isDryRun: values["dry-run"], forgetSnapshots: values["forget-snapshots"], waitMs: seconds * 1000 };
}

async function uninstall({ isDryRun, forgetSnapshots, waitMs }: Wishes): Promise<void> {
  const tell = (text: string) => console.log(text);
  const cluster = new Cluster({ isDryRun, waitMs, tell });
  const uid = await clusterUid(cluster);
  for (const [index, { title, run }] of steps.entries()) {
    tell(`${index + 1}/${steps.length} ${title}`);
    await run(cluster, { forgetSnapshots });
  }
  if (isDryRun) return tell("nothing was changed");
  tell("done: volumes, copies and journals are in /var/lib/longshore of the storage nodes, as they were");
  const which = uid === undefined ? "" : ` (${uid})`;
  const needed = `certificates of the same cluster UID${which}`;
  tell(`an installation finds them again with ${needed}: keep the folder of longshore pki`);
}

interface Secret extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

/** Data belongs to the cluster UID of the certificates, which go with their Secrets. */
async function clusterUid(cluster: Cluster): Promise<string | undefined> {
  const secret = await cluster.get<Secret>("secret", "longshore-node", "longshore-agent-pki");
  const bundle = secret?.data?.["ca.crt"];
  return bundle === undefined ? undefined : authorityClusterUid(new X509Certificate(Buffer.from(bundle, "base64")));
}

/** A defect is shown whole. */
function textOf(error: unknown): string {
  if (error instanceof Refusal) return `${error.message}\n  next: ${error.next}`;
  if (error instanceof CommandError) return `${error.message}\n  next: see to that, then run this again; it goes on`;
  const { code, message, stack } = error as NodeJS.ErrnoException;
  return code?.startsWith("ERR_PARSE_ARGS") === true ? `${message}\n${usage}` : String(stack ?? error);
}

if (import.meta.main) {
  try {
    await uninstall(wishesOf(process.argv.slice(2)));
  } catch (error) {
    console.error(`uninstall: ${textOf(error)}`);
    process.exitCode = 1;
  }
}
