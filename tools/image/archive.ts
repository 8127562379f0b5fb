// An image as one file that `ctr images import`, `docker load` and `podman load` take: a tar of its layers, its configuration and a
// list of both. The same layers and configuration give the same file, bit for bit.
import { existsSync } from "node:fs";
import { link, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ImageSpec } from "./catalogue.ts";
import { type Layer, plainMode, sha256, tar } from "./layers.ts";

export interface Archive {
  readonly file: string;
  readonly made: boolean;
}

const architectures: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };

/** What runs, and as whom, in the form of the OCI image specification. */
export function configurationOf(image: ImageSpec, digests: readonly string[], arch: string): object {
  const { entrypoint, command, user, path, env = {} } = image;
  const variables = { PATH: path, ...env };
  return {
    architecture: architectures[arch] ?? arch,
    os: "linux",
    created: "1970-01-01T00:00:00Z",
    config: {
      User: user,
      Env: Object.entries(variables).map(([name, value]) => `${name}=${value}`),
      ...(entrypoint.length > 0 && { Entrypoint: entrypoint }),
      ...(command !== undefined && { Cmd: command }),
      WorkingDir: "/",
    },
    rootfs: { type: "layers", diff_ids: digests.map((digest) => `sha256:${digest}`) },
  };
}

/** Writes `FOLDER/NAME.tar`, unless it is there and of these layers. It appears whole or not at all. */
export async function makeArchive(image: ImageSpec, layers: readonly Layer[], folder: string): Promise<Archive> {
  const digests = layers.map((layer) => layer.digest);
  const configuration = JSON.stringify(configurationOf(image, digests, process.arch));
  const digest = sha256(configuration);
  const file = join(folder, `${image.name}.tar`);
  const note = `${file}.digest`;
  const wanted = `${image.reference} ${digest}\n`;
  if (existsSync(file) && existsSync(note) && (await readFile(note, "utf8")) === wanted) return { file, made: false };
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(folder, "work-"));
  try {
    const root = join(work, "root");
    await mkdir(root);
    await writeFile(join(root, `${digest}.json`), configuration);
    for (const layer of layers) await linkOnce(layer, root);
    const list = digests.map((each) => `${each}.tar`);
    const entry = { Config: `${digest}.json`, RepoTags: [image.reference], Layers: list };
    await writeFile(join(root, "manifest.json"), JSON.stringify([entry]));
    const members = ["manifest.json", `${digest}.json`, ...new Set(list)];
    await tar(root, join(work, "image.tar"), { mode: plainMode, members });
    await rm(note, { force: true });
    await rename(join(work, "image.tar"), file);
    await writeFile(note, wanted);
    return { file, made: true };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Two layers of the same content are one file. */
async function linkOnce({ file, digest }: Layer, root: string): Promise<void> {
  const path = join(root, `${digest}.tar`);
  if (!existsSync(path)) await link(file, path);
}
