// Volumes of a real agent's engine on a real node: loop devices, file systems, mounts, as a kubelet asks for them. Needs root and XFS, on
// which the agent keeps its images.
import { execFileSync } from "node:child_process";
import { open, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect } from "@jest/globals";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import type { VolumeCapability } from "../../src/csi/csi-messages.ts";
import { nodeService } from "../../src/csi/node.ts";
import type { VolumeView } from "../../src/wire/schemas.ts";
import { type Clusters, openClusters } from "../fakes/engines.ts";
import { type LoopFs, mountLoop } from "../fakes/loop-fs.ts";
import { capabilityOf, type NodeService } from "../fakes/node-world.ts";
import { detachAll, loopsOver, mountsBelow, openRealHost, type RealHost } from "../fakes/real-host.ts";
import { onInterrupt } from "../interrupt.ts";
import { missing, needs } from "../needs.ts";

const mebibyte = 2 ** 20;
const ampleMs = 120_000;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const it = needs("root", "xfs");
const sizes = { ext4: 64 * mebibyte, xfs: 320 * mebibyte, btrfs: 256 * mebibyte } as const;
type FileSystem = keyof typeof sizes;

let disk: LoopFs;
let forget: () => void;
let clusters: Clusters;
let real: RealHost;
let calls: NodeService["calls"];

const isPossible = missing("root") === undefined && missing("xfs") === undefined;

beforeAll(async () => {
  if (!isPossible) return;
  disk = await mountLoop({ fs: "xfs", sizeBytes: 2 ** 30 });
  forget = onInterrupt(() => detachAll(disk.path));
}, ampleMs);
afterAll(async () => {
  if (!isPossible) return;
  forget();
  await disk.unmount();
}, ampleMs);

beforeEach(async () => {
  if (!isPossible) return;
  clusters = await openClusters(["here"], { parent: disk.path, backend: "reflink" });
  real = await openRealHost();
  calls = (await start()).calls;
}, ampleMs);
afterEach(async () => {
  if (!isPossible) return;
  // What a test leaves staged when it fails; the images lie on a disk of their own.
  await real.close();
  detachAll(disk.path);
  for (const { name } of (await api().listVolumes()).items) await api().removeVolume(name);
  await clusters.close();
}, ampleMs);

function api() {
  const agent = clusters.all[0];
  if (agent === undefined) throw new Error("there is no agent");
  return agent.engine.api;
}

/** The node's process, started anew: it remembers nothing. */
async function start(): Promise<NodeService> {
  const host = await real.reopen();
  return nodeService({ agent: api(), host, node: "node-1", log: silentLog, clock: systemClock });
}

const staging = (volume: string) => join(real.kubeletDir, "plugins", volume, "globalmount");
const target = (volume: string, pod = "pod-1") => join(real.kubeletDir, "pods", pod, volume, "mount");

interface Use {
  readonly fsType?: FileSystem;
  readonly isBlock?: boolean;
  readonly isReadOnly?: boolean;
  readonly pod?: string;
}

const asked = ({ fsType, isBlock }: Use): VolumeCapability =>
  capabilityOf({ ...(fsType && { fsType }), ...(isBlock && { isBlock }) });

async function stage(volume: string, use: Use): Promise<void> {
  await calls.NodeStageVolume({
    volumeId: volume,
    stagingTargetPath: staging(volume),
    volumeCapability: asked(use),
  });
}

/** Returns where the pod has it. */
async function publish(volume: string, use: Use): Promise<string> {
  const targetPath = target(volume, use.pod);
  await calls.NodePublishVolume({
    volumeId: volume,
    stagingTargetPath: staging(volume),
    targetPath,
    volumeCapability: asked(use),
    readonly: use.isReadOnly ?? false,
    volumeContext: {},
  });
  return targetPath;
}

async function unpublish(volume: string, pod?: string): Promise<void> {
  await calls.NodeUnpublishVolume({ volumeId: volume, targetPath: target(volume, pod) });
}

async function unstage(volume: string): Promise<void> {
  await calls.NodeUnstageVolume({ volumeId: volume, stagingTargetPath: staging(volume) });
}

async function bring(volume: string, use: Use): Promise<string> {
  await stage(volume, use);
  return publish(volume, use);
}

async function takeAway(volume: string): Promise<void> {
  await unpublish(volume);
  await unstage(volume);
}

function make(name: string, sizeBytes: number): Promise<VolumeView> {
  return api().putVolume(name, { sizeBytes });
}

/** Bytes of the file system, or of the device, where a pod has it. */
async function totalAt(volume: string): Promise<number> {
  const { usage } = await calls.NodeGetVolumeStats({ volumeId: volume, volumePath: target(volume) });
  return usage.find(({ unit }) => unit === "BYTES")?.total ?? 0;
}

async function expand(volume: string, sizeBytes: number, use: Use): Promise<number> {
  await api().putVolume(volume, { sizeBytes });
  const { capacityBytes } = await calls.NodeExpandVolume({
    volumeId: volume,
    volumePath: target(volume),
    stagingTargetPath: staging(volume),
    capacityRange: { requiredBytes: sizeBytes },
    volumeCapability: asked(use),
  });
  return capacityBytes;
}

const leftovers = () => ({
  mounts: mountsBelow(real.folder),
  devices: loopsOver(disk.path),
});
const nothing = { mounts: [], devices: [] };
const run = (command: string, ...words: string[]) => execFileSync(command, words, { env, stdio: "pipe" }).toString();

for (const fsType of ["ext4", "xfs", "btrfs"] as const) {
  const itHere = fsType === "btrfs" ? needs("root", "xfs", "btrfs") : it;

  describe(`a volume with ${fsType}`, () => {
    itHere(
      "keeps what pods write, from stage to stage, and leaves nothing on its node",
      async () => {
        await make("pvc-1", sizes[fsType]);
        const path = await bring("pvc-1", { fsType });
        await writeFile(join(path, "file"), "content");
        // The process is another one by now, and the kubelet asks for everything again.
        calls = (await start()).calls;
        await bring("pvc-1", { fsType });
        expect(await readFile(join(path, "file"), "utf8")).toBe("content");
        await takeAway("pvc-1");
        await takeAway("pvc-1");
        expect(leftovers()).toEqual(nothing);
        await expect(stat(path)).rejects.toThrow("ENOENT");
        await bring("pvc-1", { fsType });
        expect(await readFile(join(path, "file"), "utf8")).toBe("content");
        await takeAway("pvc-1");
        expect(leftovers()).toEqual(nothing);
      },
      ampleMs,
    );

    itHere(
      "is several pods', some of whom may only read",
      async () => {
        await make("pvc-1", sizes[fsType]);
        const writer = await bring("pvc-1", { fsType });
        const reader = await publish("pvc-1", { fsType, pod: "pod-2", isReadOnly: true });
        await writeFile(join(writer, "file"), "content");
        expect(await readFile(join(reader, "file"), "utf8")).toBe("content");
        await expect(writeFile(join(reader, "file"), "x")).rejects.toThrow("EROFS");
        await unpublish("pvc-1");
        expect(await readFile(join(reader, "file"), "utf8")).toBe("content");
        await unpublish("pvc-1", "pod-2");
        await unstage("pvc-1");
        expect(leftovers()).toEqual(nothing);
      },
      ampleMs,
    );

    itHere(
      "grows while a pod uses it or, where the kernel does not let it, when it comes again",
      async () => {
        await make("pvc-1", sizes[fsType]);
        const path = await bring("pvc-1", { fsType });
        const file = await open(join(path, "file"), "w");
        const larger = 2 * sizes[fsType];
        const grown = await expand("pvc-1", larger, { fsType }).catch((error: { code: string }) => error);
        await file.write("content");
        await file.close();
        if (typeof grown === "object") {
          expect([fsType, grown.code]).toEqual(["ext4", "FAILED_PRECONDITION"]);
          await takeAway("pvc-1");
          await bring("pvc-1", { fsType });
        }
        expect(await totalAt("pvc-1")).toBeGreaterThan(1.5 * sizes[fsType]);
        expect(await expand("pvc-1", larger, { fsType })).toBe(larger);
        expect(await readFile(join(path, "file"), "utf8")).toBe("content");
        await takeAway("pvc-1");
      },
      ampleMs,
    );

    itHere(
      "is held still by its agent while it is snapshotted, and its clone is whole",
      async () => {
        await make("pvc-1", sizes[fsType]);
        const path = await bring("pvc-1", { fsType });
        await writeFile(join(path, "file"), "before");
        await api().putSnapshot("pvc-1", "s1");
        await writeFile(join(path, "file"), "after");
        // A clone larger than its origin, which grows when it is staged.
        const larger = 2 * sizes[fsType];
        const clone = await api().putVolume("pvc-2", { sizeBytes: larger, from: { volume: "pvc-1", snapshot: "s1" } });
        if (fsType === "ext4") expect(run("dumpe2fs", "-h", clone.path)).not.toContain("needs_recovery");
        await takeAway("pvc-1");
        const copy = await bring("pvc-2", { fsType });
        expect(await readFile(join(copy, "file"), "utf8")).toBe("before");
        expect(await totalAt("pvc-2")).toBeGreaterThan(1.5 * sizes[fsType]);
        await takeAway("pvc-2");
        expect(leftovers()).toEqual(nothing);
      },
      ampleMs,
    );
  });
}

it(
  "two XFS clones are used on one node, beside their origin",
  async () => {
    const use = { fsType: "xfs" } as const;
    await make("pvc-1", sizes.xfs);
    const origin = await bring("pvc-1", use);
    await writeFile(join(origin, "file"), "content");
    await api().putSnapshot("pvc-1", "s1");
    const paths: string[] = [];
    for (const name of ["pvc-2", "pvc-3"]) {
      await api().putVolume(name, { sizeBytes: sizes.xfs, from: { volume: "pvc-1", snapshot: "s1" } });
      paths.push(await bring(name, use));
    }
    for (const path of paths) {
      expect(await readFile(join(path, "file"), "utf8")).toBe("content");
      await writeFile(join(path, "file"), path);
    }
    expect(await readFile(join(origin, "file"), "utf8")).toBe("content");
    expect(await Promise.all(paths.map((path) => readFile(join(path, "file"), "utf8")))).toEqual(paths);
    for (const name of ["pvc-1", "pvc-2", "pvc-3"]) await takeAway(name);
    expect(leftovers()).toEqual(nothing);
  },
  ampleMs,
);

it(
  "a raw block volume is a device to its pod, grows under it, and keeps what is written",
  async () => {
    const use = { isBlock: true };
    await make("pvc-1", sizes.ext4);
    const path = await bring("pvc-1", use);
    expect((await stat(path)).isBlockDevice()).toBe(true);
    const device = await open(path, "r+");
    await device.write(Buffer.from("content"), 0, undefined, sizes.ext4 - 4096);
    await device.sync();
    expect(await totalAt("pvc-1")).toBe(sizes.ext4);
    expect(await expand("pvc-1", 2 * sizes.ext4, use)).toBe(2 * sizes.ext4);
    expect(await totalAt("pvc-1")).toBe(2 * sizes.ext4);
    await device.write(Buffer.from("beyond"), 0, undefined, 2 * sizes.ext4 - 4096);
    await device.close();
    calls = (await start()).calls;
    await bring("pvc-1", use);
    await takeAway("pvc-1");
    expect(leftovers()).toEqual(nothing);
    const { path: image } = await api().getVolume("pvc-1");
    const bytes = await readFile(image);
    expect(
      bytes
        .subarray(sizes.ext4 - 4096)
        .subarray(0, 7)
        .toString(),
    ).toBe("content");
    expect(
      bytes
        .subarray(2 * sizes.ext4 - 4096)
        .subarray(0, 6)
        .toString(),
    ).toBe("beyond");
  },
  ampleMs,
);

it(
  "a format that was cut off is done again, and what it left is never taken for data, nor data for that",
  async () => {
    const { path: image, uid } = await make("pvc-1", sizes.ext4);
    // As far as mkfs got, which was noted before.
    const host = await real.reopen();
    await host.writeNote("pvc-1", { uid, image: await host.identify(image), formatting: "ext4", targets: [] });
    await real.scribble(image);
    const path = await bring("pvc-1", { fsType: "ext4" });
    await writeFile(join(path, "file"), "content");
    await takeAway("pvc-1");
    // The same bytes without the note are somebody's.
    const { path: other } = await make("pvc-2", sizes.ext4);
    await real.scribble(other);
    await expect(stage("pvc-2", { fsType: "ext4" })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("data of an unknown kind"),
    });
    expect((await readFile(other)).subarray(0, 4).toString()).toBe("what");
    await unstage("pvc-2");
    expect(leftovers()).toEqual(nothing);
  },
  ampleMs,
);

it(
  "a volume with another file system than is asked for is left as it is",
  async () => {
    await make("pvc-1", sizes.xfs);
    const path = await bring("pvc-1", { fsType: "xfs" });
    await writeFile(join(path, "file"), "content");
    await takeAway("pvc-1");
    await expect(stage("pvc-1", { fsType: "ext4" })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("it holds xfs, and ext4 was asked for"),
    });
    await unstage("pvc-1");
    await bring("pvc-1", {});
    expect(await readFile(join(path, "file"), "utf8")).toBe("content");
    await takeAway("pvc-1");
  },
  ampleMs,
);

it(
  "ten volumes come at once, and go at once",
  async () => {
    const names = Array.from({ length: 10 }, (_, index) => `pvc-${index}`);
    for (const name of names) await make(name, sizes.ext4);
    const paths = await Promise.all(names.map((name) => bring(name, { fsType: "ext4" })));
    await Promise.all(paths.map((path) => writeFile(join(path, "file"), path)));
    expect(new Set(loopsOver(disk.path)).size).toBe(names.length);
    await Promise.all(names.map(takeAway));
    expect(leftovers()).toEqual(nothing);
  },
  ampleMs,
);
