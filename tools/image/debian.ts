// Debian packages without installing them: which ones a list needs, as if nothing were installed; their files, unpacked into a
// folder. apt verifies what it downloads; no root is needed.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../run-command.ts";

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** Of the archive, as apt names it. */
  readonly file: string;
  /** Size and digest, as apt tells them: of another content they are others. */
  readonly content: string;
}

/** Reads what `apt-get --print-uris` prints: `'URI' FILE SIZE DIGEST` a line. */
export function parseUris(text: string): DebianPackage[] {
  return text.split("\n").flatMap((line) => {
    const [, file, content] = /^'[^']*' (\S+_\S+_\S+\.deb) (\d+(?: \S+)?)\s*$/.exec(line) ?? [];
    const [name, version] = file?.split("_") ?? [];
    if (file === undefined || content === undefined || name === undefined || version === undefined) return [];
    return [{ name, version: decodeURIComponent(version), file, content }];
  });
}

/** The packages and all that they depend on, without recommendations, sorted by name. */
export async function closureOf(packages: readonly string[]): Promise<DebianPackage[]> {
  const text = await withEmptySystem((options) => aptGet([...options, "--print-uris", "install", ...packages]));
  const found = parseUris(text);
  const lacking = packages.filter((name) => !found.some((one) => one.name === name));
  if (lacking.length > 0) throw new Error(`apt-get told nothing of ${lacking.join(", ")}; run apt-get update`);
  return found.sort((one, other) => (one.name < other.name ? -1 : 1));
}

/** Brings the archives into `folder`, where they are kept. */
export async function download(packages: readonly DebianPackage[], folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const lacking = packages.filter(({ file }) => !existsSync(join(folder, file)));
  if (lacking.length === 0) return;
  // Elsewhere first, so that an archive in the folder is a whole one.
  const partial = await mkdtemp(join(folder, "partial-"));
  try {
    const wanted = lacking.map(({ name, version }) => `${name}=${version}`);
    await runCommand("apt-get", ["-qq", "download", ...wanted], { cwd: partial });
    for (const file of await readdir(partial)) await rename(join(partial, file), join(folder, file));
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  const absent = packages.find(({ file }) => !existsSync(join(folder, file)));
  if (absent !== undefined) throw new Error(`apt-get downloaded no ${absent.file}; run apt-get update`);
}

/** Unpacks the archives into `root`, one over the other, without what only people at a terminal of theirs read. */
export async function unpack(packages: readonly DebianPackage[], folder: string, root: string): Promise<void> {
  await mkdir(root, { recursive: true });
  for (const { file } of packages) await runCommand("dpkg-deb", ["--extract", join(folder, file), root]);
  for (const name of ["bug", "info", "lintian", "locale", "man", "menu"]) {
    await rm(join(root, "usr/share", name), { recursive: true, force: true });
  }
  await keepCopyrights(join(root, "usr/share/doc"));
}

async function keepCopyrights(folder: string): Promise<void> {
  if (!existsSync(folder)) return;
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    for (const file of await readdir(join(folder, entry.name))) {
      if (file !== "copyright") await rm(join(folder, entry.name, file), { recursive: true, force: true });
    }
  }
}

/** Gives options by which apt takes nothing to be installed, and nothing to be downloaded yet. */
async function withEmptySystem<T>(use: (options: readonly string[]) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "longshore-apt-"));
  try {
    await writeFile(join(folder, "status"), "");
    await mkdir(join(folder, "archives/partial"), { recursive: true });
    const settings = {
      "Dir::State::status": join(folder, "status"),
      "Dir::State::extended_states": join(folder, "extended_states"),
      "Dir::Cache::archives": join(folder, "archives"),
      "Dir::Cache::pkgcache": "",
      "Dir::Cache::srcpkgcache": "",
      "Debug::NoLocking": "true",
      "APT::Install-Recommends": "false",
    };
    return await use(Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A machine whose lists of packages are missing or old gets them anew, once. */
async function aptGet(args: readonly string[]): Promise<string> {
  try {
    return await runCommand("apt-get", ["-qq", ...args]);
  } catch (error) {
    if (!/Unable to locate package|has no installation candidate/.test(String(error))) throw error;
    await runCommand("apt-get", ["-qq", "update"]);
    return runCommand("apt-get", ["-qq", ...args]);
  }
}
