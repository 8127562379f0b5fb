// The layers of images: each a tar file that is the same, bit for bit, whenever it is made of the same inputs, and is kept under a
// digest of them. Names are sorted, times are 1970, and all belongs to root, so that who makes it need not be.
import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { unreachable } from "../../src/base/assert.ts";
import { runCommand } from "../run-command.ts";
import type { FileSpec, LayerSpec } from "./catalogue.ts";
import { closureOf, type DebianPackage, download, unpack } from "./debian.ts";
import { turnIntoJavaScript } from "./javascript.ts";
import { copyFolders, type LockFile, type NeededFolder, neededFolders } from "./modules.ts";

/** Where things are taken from, and kept. */
export interface LayerPlaces {
  /** The tree whose source, packages and programs go into images. */
  readonly tree: string;
  /** Debian's archives. */
  readonly archives: string;
  readonly layers: string;
}

export interface Layer {
  readonly file: string;
  /** SHA-256 of the file, in hex. */
  readonly digest: string;
  readonly made: boolean;
}

/** Inputs of a layer, and how to lay them out in a folder that is there and empty. */
interface Recipe {
  readonly inputs: string;
  stage(root: string): Promise<void>;
  /** As tar's --mode: for what carries the umask of who checked it out. */
  readonly mode?: string;
}

/** Raised with every change of how a layer is made of its inputs. */
const recipeVersion = 2;
export const plainMode = "u+rw,go-w,a+rX";
const home = "opt/longshore";

/** The layer as it is kept, or made now. Other versions of it are removed then. */
export async function makeLayer(spec: LayerSpec, places: LayerPlaces): Promise<Layer> {
  const recipe = await recipeOf(spec, places);
  const key = sha256(JSON.stringify([recipeVersion, process.arch, spec.kind, spec.name, recipe.inputs])).slice(0, 24);
  const file = join(places.layers, `${spec.name}-${key}.tar`);
  const note = `${file}.sha256`;
  if (existsSync(file) && existsSync(note)) return { file, digest: await readFile(note, "utf8"), made: false };
  await mkdir(places.layers, { recursive: true });
  const work = await mkdtemp(join(places.layers, "work-"));
  try {
    const root = join(work, "root");
    await mkdir(root);
    await chmod(root, 0o755);
    await recipe.stage(root);
    await tar(root, join(work, "layer.tar"), recipe);
    const digest = await fileDigest(join(work, "layer.tar"));
    await removeOthers(places.layers, spec.name);
    await rename(join(work, "layer.tar"), file);
    await writeFile(note, digest);
    return { file, digest, made: true };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Packs a folder, or `members` of it, always alike. `mode` is left out where the modes are those wanted. */
export async function tar(
  root: string,
  file: string,
  { mode, members = ["."] }: { readonly mode?: string; readonly members?: readonly string[] },
): Promise<void> {
  const alike = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
  const modes = mode === undefined ? [] : [`--mode=${mode}`];
  const more = ["--hard-dereference", `--file=${file}`, `--directory=${root}`];
  await runCommand("tar", ["--create", ...alike, ...modes, ...more, ...members]);
}

export async function fileDigest(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

async function removeOthers(folder: string, name: string): Promise<void> {
  const isOne = (file: string) => file.startsWith(`${name}-`) && /^[0-9a-f]{24}\.tar/.test(file.slice(name.length + 1));
  for (const file of await readdir(folder)) if (isOne(file)) await rm(join(folder, file), { force: true });
}

function recipeOf(spec: LayerSpec, places: LayerPlaces): Promise<Recipe> {
  switch (spec.kind) {
    case "debian":
      return debianRecipe(spec, places);
    case "files":
      return Promise.resolve(filesRecipe(spec.files));
    case "node":
      return nodeRecipe(places);
    case "modules":
      return modulesRecipe(places);
    case "source":
      return sourceRecipe(places);
    case "program":
      return programRecipe(spec.name, places);
    default:
      return unreachable(spec);
  }
}

async function debianRecipe(
  { packages, below, without }: Extract<LayerSpec, { kind: "debian" }>,
  { archives }: LayerPlaces,
): Promise<Recipe> {
  const lower = below.length === 0 ? [] : await closureOf(below);
  const isBelow = ({ name }: DebianPackage) => lower.some((one) => one.name === name);
  const all = await closureOf([...below, ...packages]);
  const wanted = all.filter((one) => !isBelow(one) && !without.test(one.name));
  return {
    inputs: JSON.stringify(wanted.map(({ file, content }) => [file, content])),
    async stage(root) {
      await download(wanted, archives);
      await unpack(wanted, archives, root);
    },
    // Nobody becomes root by running a program of the image.
    mode: "ug-s",
  };
}

function filesRecipe(files: readonly FileSpec[]): Recipe {
  return {
    inputs: JSON.stringify(files),
    async stage(root) {
      for (const file of files) await writeSpec(file, join(root, file.path));
    },
    mode: "u+rw,a+rX",
  };
}

/** The mode is set after it was made, for the umask takes from what is asked for. */
async function writeSpec(spec: FileSpec, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  if ("target" in spec) return symlink(spec.target, path);
  if ("folder" in spec) await mkdir(path, { recursive: true });
  else await writeFile(path, spec.text);
  await chmod(path, spec.mode);
}

async function nodeRecipe({ tree }: LayerPlaces): Promise<Recipe> {
  const program = join(tree, "node_modules/node/bin/node");
  const { packages } = await lockOf(tree);
  const inputs = `${packages["node_modules/node"]?.version} ${(await stat(program)).size}`;
  return { ...oneFile(program, "usr/local/bin/node"), inputs };
}

async function modulesRecipe({ tree }: LayerPlaces): Promise<Recipe> {
  const lock = await lockOf(tree);
  const folders = neededFolders(lock, { os: process.platform, cpu: process.arch });
  const versions = folders.map(({ path }) => [path, lock.packages[path]]);
  return {
    inputs: JSON.stringify([versions, presentOf(folders, tree)]),
    stage: (root) => copyFolders(folders, tree, join(root, home)),
    mode: plainMode,
  };
}

/** Which of the optional ones npm has installed. */
function presentOf(folders: readonly NeededFolder[], tree: string): string[] {
  return folders.flatMap(({ path, isOptional }) => (isOptional && existsSync(join(tree, path)) ? [path] : []));
}

async function lockOf(tree: string): Promise<LockFile> {
  return JSON.parse(await readFile(join(tree, "package-lock.json"), "utf8")) as LockFile;
}

async function sourceRecipe({ tree }: LayerPlaces): Promise<Recipe> {
  const files = ["LICENSE", "package.json", ...(await sourceFiles(tree))];
  const contents = files.map(async (file) => [file, await fileDigest(join(tree, file))]);
  return {
    // Node.js takes the types out.
    inputs: JSON.stringify([process.version, await Promise.all(contents)]),
    async stage(root) {
      for (const file of files) await copyInto(join(tree, file), join(root, home, file));
      await turnIntoJavaScript(join(root, home, "src"));
      const command = { path: "usr/local/bin/longshore", target: `/${home}/src/bin/longshore.js` };
      await writeSpec(command, join(root, command.path));
    },
    mode: plainMode,
  };
}

/** All under src/ but the tests. */
async function sourceFiles(tree: string): Promise<string[]> {
  const entries = await readdir(join(tree, "src"), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && !entry.name.endsWith(".test.ts"))
    .map((entry) => relative(tree, join(entry.parentPath, entry.name)))
    .sort();
}

async function programRecipe(name: string, { tree }: LayerPlaces): Promise<Recipe> {
  const program = join(tree, ".cache/controlplane", name);
  if (!existsSync(program)) throw new Error(`${name} is not in .cache/controlplane; run make setup`);
  return { ...oneFile(program, name), inputs: await fileDigest(program) };
}

function oneFile(from: string, path: string): Omit<Recipe, "inputs"> {
  return { stage: (root) => copyInto(from, join(root, path)), mode: plainMode };
}

async function copyInto(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
}

export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
