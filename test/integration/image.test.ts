// The images of tools/image.ts: that they are whole and what they should be, that what is in them runs, and that they are the same
// whenever they are made of the same.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { type BuiltImage, buildImages, placesIn } from "../../tools/image/build.ts";
import { imagesOf } from "../../tools/image/catalogue.ts";
import { fileDigest } from "../../tools/image/layers.ts";
import { onInterrupt } from "../interrupt.ts";
import { missing, needs } from "../needs.ts";

const check = needs("root", "apt");
const root = join(import.meta.dirname, "../..");
const slowMs = 900_000;
/** Without those whose programs come from Go, which may not be built here. */
const images = imagesOf("all").filter(({ name }) => ["longshore", "busybox", "postgres"].includes(name));

let folder: string | undefined;
let forget: () => void;
let built: BuiltImage[];

beforeAll(async () => {
  if (missing("root") !== undefined || missing("apt") !== undefined) return;
  const made = mkdtempSync(join(tmpdir(), "longshore-image-"));
  folder = made;
  forget = onInterrupt(() => rmSync(made, { recursive: true, force: true }));
  built = await buildImages(images, places("first"));
}, slowMs);

afterAll(() => {
  if (folder === undefined) return;
  rmSync(folder, { recursive: true });
  forget();
});

function inFolder(...names: string[]): string {
  return join(String(folder), ...names);
}

/** The Debian archives are those of the tree, so that they are downloaded once; everything else is made here. */
function places(name: string) {
  return { ...placesIn(root), layers: inFolder(name, "layers"), images: inFolder(name) };
}

// As images have it: what is started in one is looked for there.
const env = { ...process.env, PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 26, env });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}: ${stderr}`);
  return stdout;
}

interface Contents {
  readonly Config: string;
  readonly RepoTags: readonly string[];
  readonly Layers: readonly string[];
}

function fileOf(name: string): string {
  return built.find((image) => image.name === name)?.file ?? "";
}

function contentsOf(archive: string): Contents {
  const [contents] = JSON.parse(run("tar", "-xOf", archive, "manifest.json")) as [Contents];
  return contents;
}

/** Unpacks the archive itself, once. */
function opened(name: string): string {
  const to = inFolder(`opened-${name}`);
  if (existsSync(to)) return to;
  mkdirSync(to);
  run("tar", "-xf", fileOf(name), "-C", to);
  return to;
}

/** Unpacks an image as a container runtime does, layer by layer, once. */
function unpacked(name: string): string {
  const rootfs = inFolder(`root-${name}`);
  if (existsSync(rootfs)) return rootfs;
  mkdirSync(rootfs);
  for (const layer of contentsOf(fileOf(name)).Layers) run("tar", "-xpf", join(opened(name), layer), "-C", rootfs);
  return rootfs;
}

/** Runs a shell script in the image, with the devices and processes of this machine, in mounts that end with it. */
function inImage(name: string, script: string, user = "0:0"): string {
  const enter = `mount --rbind /dev "$0/dev"
    mount --rbind /proc "$0/proc"
    exec chroot --userspec="$1" "$0" /bin/sh -ec "$2"`;
  return run("unshare", "--mount", "sh", "-ec", enter, unpacked(name), user, script);
}

describe("an archive", () => {
  check(
    "has exactly what its list names, and each layer is what the configuration says it is",
    async () => {
      for (const { file, reference, name } of built) {
        const { Config, RepoTags, Layers } = contentsOf(file);
        expect(RepoTags).toEqual([reference]);
        const members = run("tar", "-tf", file).trim().split("\n").sort();
        expect(members).toEqual([...new Set(["manifest.json", Config, ...Layers])].sort());
        const to = opened(name);
        const { rootfs } = JSON.parse(readFileSync(join(to, Config), "utf8")) as { rootfs: { diff_ids: string[] } };
        const digests = await Promise.all(Layers.map((layer) => fileDigest(join(to, layer))));
        expect(rootfs.diff_ids).toEqual(digests.map((digest) => `sha256:${digest}`));
        expect(await fileDigest(join(to, Config))).toBe(Config.replace(".json", ""));
      }
    },
    slowMs,
  );

  check(
    "belongs to root throughout, has no time in it, and nothing that makes anybody root",
    () => {
      for (const layer of contentsOf(fileOf("longshore")).Layers) {
        const listing = ["--numeric-owner", "--full-time", "--utc", "-tvf", join(opened("longshore"), layer)];
        const lines = run("tar", ...listing)
          .trim()
          .split("\n");
        expect(lines.filter((line) => !/^.{10} 0\/0 +\d+ 1970-01-01 00:00:00 /.test(line))).toEqual([]);
        expect(lines.filter((line) => /^-..[sS]|^-.{5}[sS]/.test(line))).toEqual([]);
      }
    },
    slowMs,
  );
});

describe("in a root of its own", () => {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };

  check(
    "longshore runs as nobody in particular, without anything of this machine",
    () => {
      const nobody = ["--userspec=65532:65532", unpacked("longshore"), "/usr/local/bin/longshore"];
      expect(run("chroot", ...nobody, "--version").trim()).toBe(version);
      for (const command of ["agent", "operator", "pki"]) {
        expect(run("chroot", ...nobody, command, "--help")).toContain(`Usage: longshore ${command}`);
      }
    },
    slowMs,
  );

  check(
    "the programs are there that the node plugin runs, with their libraries",
    () => {
      const script = `
        mkfs.ext4 -V; mkfs.xfs -V; mkfs.btrfs -V; btrfs --version; xfs_io -V
        losetup -V; mount -V; findmnt -V; blkid -V; sed --version
        for name in e2fsck resize2fs xfs_growfs; do command -v $name; done`;
      expect(inImage("longshore", script)).toContain("xfs_growfs");
    },
    slowMs,
  );

  check(
    "the native calls are there: their library loads",
    () => {
      const script = `import("koffi").then(({ default: koffi }) => console.log(typeof koffi.load))`;
      const said = inImage("longshore", `cd /opt/longshore && exec node --input-type=module --eval '${script}'`);
      expect(said.trim()).toBe("function");
    },
    slowMs,
  );

  check(
    "every module loads, with no types to take out",
    () => {
      const script = `import fs from "node:fs"; for (const file of fs.globSync("/opt/longshore/src/**/*.js")) await import(file); console.log("all")`;
      const said = inImage(
        "longshore",
        `exec node --no-strip-types --input-type=module --eval '${script}'`,
        "65532:65532",
      );
      expect(said.trim()).toBe("all");
    },
    slowMs,
  );

  check(
    "nothing of the tests, and of what only development needs, is in it",
    () => {
      expect(inImage("longshore", "ls -R /opt/longshore/src")).not.toMatch(/\.test\.|\.ts$/m);
      const modules = inImage("longshore", "ls /opt/longshore/node_modules").split("\n");
      expect(modules).toEqual(expect.arrayContaining(["commander", "fastify", "koffi"]));
      for (const name of ["jest", "typescript", "node"]) expect(modules).not.toContain(name);
    },
    slowMs,
  );

  check(
    "PostgreSQL serves a database that it makes, as nobody in particular, and checks it",
    () => {
      const script = `
        export PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/tmp/data/pgdata PGHOST=/tmp PGUSER=postgres
        mkdir /tmp/data
        serve-postgres -c listen_addresses= >/tmp/log 2>&1 &
        server=$!
        trap 'kill -KILL $server 2>/dev/null || true' EXIT
        tries=0
        until pg_isready --quiet; do
          tries=$((tries + 1))
          [ $tries -lt 600 ] || { cat /tmp/log >&2; exit 1; }
          sleep 0.1
        done
        pgbench --initialize --quiet --scale=1 >/tmp/pgbench 2>&1
        psql --quiet --command="create extension amcheck"
        pg_amcheck --heapallindexed postgres
        psql --no-align --tuples-only --command="select count(*) from pgbench_accounts"
        kill -INT $server
        wait $server
        pg_checksums --check >/tmp/checksums`;
      expect(inImage("postgres", script, "65532:65532").trim()).toBe("100000");
    },
    slowMs,
  );

  check(
    "busybox has its applets beside the usual programs",
    () => {
      expect(inImage("busybox", "echo a b | awk '{ print $2 }' | sha256sum | grep -c -- -").trim()).toBe("1");
      expect(inImage("busybox", "nslookup --help 2>&1 || true")).toContain("Usage: nslookup");
    },
    slowMs,
  );
});

check(
  "made again from scratch, every image is the same bit for bit; made again at once, nothing is done",
  async () => {
    const again = await buildImages(images, places("second"));
    for (const { name, file } of again) {
      expect({ name, digest: await fileDigest(file) }).toEqual({ name, digest: await fileDigest(fileOf(name)) });
    }
    expect((await buildImages(images, places("second"))).map(({ made }) => made)).toEqual(images.map(() => false));
  },
  slowMs,
);
