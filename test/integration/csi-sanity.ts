// Runs csi-sanity, the conformance suite of the Container Storage Interface, and reads what became of each of its cases.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { controlPlaneAssets } from "../e2e/control-plane-program.ts";

const run = promisify(execFile);

export interface SanityOptions {
  /** The sockets of the two processes, as endpoints. */
  readonly node: string;
  readonly controller: string;
  /** Below it volumes are staged and published; the kubelet's in real life. */
  readonly kubeletDir: string;
  readonly accessType: "mount" | "block";
  /** Where the report goes. */
  readonly folder: string;
}

export interface SanityCase {
  readonly name: string;
  readonly status: "passed" | "failed" | "skipped" | "pending";
  /** Why it was skipped, or what failed. */
  readonly says: string;
}

const volumeBytes = 64 * 2 ** 20;

/** Every case of the suite. Throws, with what it said, when it did not come so far as to write its report. */
export async function runCsiSanity(options: SanityOptions): Promise<readonly SanityCase[]> {
  const { node, controller, kubeletDir, accessType, folder } = options;
  const report = join(folder, `sanity-${accessType}.xml`);
  const words = [
    `--csi.endpoint=${node}`,
    `--csi.controllerendpoint=${controller}`,
    `--csi.mountdir=${join(kubeletDir, `mount-${accessType}`)}`,
    `--csi.stagingdir=${join(kubeletDir, `staging-${accessType}`)}`,
    `--csi.testvolumeaccesstype=${accessType}`,
    `--csi.testvolumesize=${volumeBytes}`,
    `--csi.testvolumeexpandsize=${2 * volumeBytes}`,
    `--ginkgo.junit-report=${report}`,
    "--ginkgo.no-color",
    "--ginkgo.v",
  ];
  const said = await outputOf(["--pdeathsig", "KILL", join(controlPlaneAssets, "csi-sanity"), ...words]);
  try {
    return casesIn(await readFile(report, "utf8"));
  } catch (cause) {
    throw new Error(`csi-sanity gave no report that can be read; it said:\n${said.slice(-5_000)}`, { cause });
  }
}

/** Cases that fail are an exit status of 1; the report tells which. */
async function outputOf(words: readonly string[]): Promise<string> {
  try {
    const { stdout, stderr } = await run("setpriv", words, { maxBuffer: 64 * 2 ** 20 });
    return stdout + stderr;
  } catch (error) {
    const { stdout = "", stderr = "", message } = error as Error & { stdout?: string; stderr?: string };
    return `${stdout}${stderr}${message}`;
  }
}

const statuses = ["passed", "failed", "skipped", "pending"] as const;

/** The cases of a JUnit report as Ginkgo writes it; throws for one that has another number of them than it says. */
export function casesIn(report: string): SanityCase[] {
  const found = [...report.matchAll(/<testcase name="([^"]*)"[^>]*\bstatus="([^"]*)"[^>]*>([\s\S]*?)<\/testcase>/g)];
  const [, told = "none"] = /<testsuite [^>]*\btests="(\d+)"/.exec(report) ?? [];
  if (String(found.length) !== told) throw new Error(`the report has ${found.length} cases, and says ${told}`);
  return found.map(([, name = "", word = "", body = ""]) => ({
    name: plain(name),
    // Whatever else there is, such as a panic or a timeout, is no success.
    status: statuses.find((status) => status === word) ?? "failed",
    says: plain(/<(?:skipped|failure|error) message="([^"]*)"/.exec(body)?.[1] ?? ""),
  }));
}

const entities: Readonly<Record<string, string>> = { quot: '"', apos: "'", lt: "<", gt: ">", amp: "&" };

function plain(text: string): string {
  return text.replaceAll(/&(?:#(\d+)|#x([0-9a-fA-F]+)|([a-z]+));/g, (whole, decimal, hexadecimal, name) => {
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    if (hexadecimal !== undefined) return String.fromCodePoint(Number.parseInt(hexadecimal, 16));
    return entities[String(name)] ?? whole;
  });
}
