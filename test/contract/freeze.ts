// What every StorageBackend promises about volumes that are frozen while a file system on them is mounted. Needs root.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect } from "@jest/globals";
import type { FrozenVolume, StorageBackend } from "../../src/storage/backend.ts";
import { openBackend } from "../../src/storage/open.ts";
import { eventually } from "../e2e/process.ts";
import { guardsOf } from "../fakes/freeze-guards.ts";
import { startWriter, type Writer } from "../fakes/held-up-writer.ts";
import { type MountedImage, mountImage, thawNow } from "../fakes/mounted-image.ts";
import { onInterrupt } from "../interrupt.ts";
import { needs } from "../needs.ts";
import type { StorageContract, StorageGround } from "./storage.ts";

const mebibyte = 2 ** 20;
const ample = 60_000;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const sizes = { ext4: 32 * mebibyte, xfs: 320 * mebibyte, btrfs: 120 * mebibyte };

let ground: StorageGround;
let root: string;
let backend: StorageBackend;
let image: MountedImage | undefined;
let count = 0;

export function freezeContract(implementation: string, { it, open }: StorageContract): void {
  describe(`a mounted volume, frozen, with the storage backend ${implementation}`, () => {
    beforeAll(async () => {
      ground = await open();
    });
    afterAll(async () => {
      await ground.remove();
    });
    beforeEach(async () => {
      root = join(ground.path, `frozen-${++count}`);
      backend = await openBackend({ kind: ground.kind, root });
    });
    afterEach(async () => {
      await backend.close();
      await image?.unmount();
      image = undefined;
      // Whatever happened, nothing is left of it.
      await eventually("the guard having ended", async () => (guardsOf(process.pid).length === 0 ? true : undefined));
    });

    mounted(it);
    broken(it);
    refused(it);
  });

  describe(`an attached volume with the storage backend ${implementation}`, () => attached(it, open));
}

type It = StorageContract["it"];
type FileSystem = keyof typeof sizes;

async function makeMounted(type: FileSystem = "ext4"): Promise<MountedImage> {
  await backend.create("vol", sizes[type]);
  image = await mountImage(backend.livePath("vol"), { fs: type });
  return image;
}

async function heldUpWriter(at: Pick<MountedImage, "path">): Promise<Writer> {
  const writer = startWriter(join(at.path, `file-${++count}`));
  await eventually("the writer being held up", async () => (writer.isHeldUp() ? true : undefined));
  return writer;
}

/** Frozen until its own timer thaws it, and a writer that was seen to be held up before. */
async function heldUpForATime(at: Pick<MountedImage, "path">): Promise<{ frozen: FrozenVolume; writer: Writer }> {
  // A busy machine may take longer to start a writer.
  for (let timeoutMs = 500; ; timeoutMs *= 2) {
    const frozen = await backend.freeze("vol", timeoutMs);
    const writer = startWriter(join(at.path, `file-${++count}`));
    let isRunning = true;
    const end = () => {
      isRunning = false;
    };
    writer.done.then(end, end);
    for (; isRunning; await pause(5)) if (writer.isHeldUp()) return { frozen, writer };
    await writer.done;
    await frozen.thaw();
  }
}

async function note(): Promise<string[]> {
  return fs.readdir(join(root, "frozen"));
}

function mounted(it: It): void {
  for (const type of ["ext4", "xfs", "btrfs"] as const) {
    const itHere = type === "ext4" ? it : needs("root", type);
    itHere(`(${type}) holds up its writers until it is thawed, and its snapshot is whole`, async () => {
      const mount = await makeMounted(type);
      await fs.writeFile(join(mount.path, "before"), "before");
      const frozen = await backend.freeze("vol", ample);
      expect(frozen.isMounted).toBe(true);
      const writer = await heldUpWriter(mount);
      const { identity, restsOnFreeze } = await backend.snapshot("vol", "p");
      expect(restsOnFreeze === true).toBe(backend.kind === "copy");
      expect(writer.isHeldUp()).toBe(true);
      const thaw = await frozen.thaw();
      expect(thaw).toMatchObject({ wasFrozen: true });
      expect(thaw.frozenMs).toBeGreaterThan(0);
      await writer.done;
      expect(await frozen.thaw()).toEqual(thaw);
      expect(await note()).toEqual([]);
      await backend.clone({ volume: "vol", point: "p", identity }, { volume: "copy", sizeBytes: sizes[type] });
      await mount.unmount();
      await checkWhole(type, backend.livePath("copy"));
    });
  }

  it("is thawed by its own timer, and says so", async () => {
    const mount = await makeMounted();
    const { frozen, writer } = await heldUpForATime(mount);
    await writer.done;
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: false });
    expect(await note()).toEqual([]);
  });

  it("is frozen once more after each thaw", async () => {
    await makeMounted();
    for (let round = 1; round <= 3; round++) {
      const frozen = await backend.freeze("vol", ample);
      expect(await frozen.thaw()).toMatchObject({ wasFrozen: true });
    }
  });

  it("is thawed when the backend is closed", async () => {
    const mount = await makeMounted();
    await backend.freeze("vol", ample);
    const writer = await heldUpWriter(mount);
    await backend.close();
    await writer.done;
  });

  it("may be mounted at several places", async () => {
    const mount = await makeMounted();
    const other = await fs.mkdtemp(join(ground.path, "bound-"));
    execFileSync("mount", ["--bind", mount.path, other], { env });
    const forget = onInterrupt(() => execFileSync("umount", ["--lazy", other], { env }));
    try {
      const frozen = await backend.freeze("vol", ample);
      await heldUpWriter(mount);
      expect(await frozen.thaw()).toMatchObject({ wasFrozen: true });
    } finally {
      execFileSync("umount", [other], { env });
      forget();
      await fs.rmdir(other);
    }
  });

  it("may have its file system in a partition", async () => {
    await backend.create("vol", sizes.ext4);
    const live = backend.livePath("vol");
    const path = await fs.mkdtemp(join(ground.path, "partition-"));
    const loop = execFileSync("losetup", ["--find", "--show", live], { env, encoding: "utf8" }).trim();
    const undo = () => {
      thawNow(path);
      spawnSync("umount", ["--quiet", path], { env });
      // A partition that was added by hand outlives what is attached.
      spawnSync("delpart", [loop, "1"], { env });
      spawnSync("losetup", ["--detach", loop], { env });
    };
    const forget = onInterrupt(undo);
    try {
      // Not every kernel reads partition tables.
      execFileSync("addpart", [loop, "1", "2048", "60000"], { env });
      execFileSync("mkfs.ext4", ["-q", "-F", `${loop}p1`], { env });
      execFileSync("mount", [`${loop}p1`, path], { env });
      const frozen = await backend.freeze("vol", ample);
      expect(frozen.isMounted).toBe(true);
      const writer = await heldUpWriter({ path });
      expect(await frozen.thaw()).toMatchObject({ wasFrozen: true });
      await writer.done;
    } finally {
      undo();
      forget();
      await fs.rmdir(path);
    }
  });
}

/** What breaks a freeze is told by the thaw, and leaves nothing frozen. */
function broken(it: It): void {
  it("and thawed by somebody else, was not frozen all the time", async () => {
    const mount = await makeMounted();
    const frozen = await backend.freeze("vol", ample);
    expect(thawNow(mount.path)).toBe(true);
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: false });
  });

  it("is thawed when the guard is killed", async () => {
    const mount = await makeMounted();
    const frozen = await backend.freeze("vol", ample);
    const writer = await heldUpWriter(mount);
    for (const guard of guardsOf(process.pid)) process.kill(guard, "SIGKILL");
    await writer.done;
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: false });
    const again = await backend.freeze("vol", ample);
    expect(await again.thaw()).toMatchObject({ wasFrozen: true });
  });

  it("is thawed although the guard is stopped, but not taken for frozen", async () => {
    const mount = await makeMounted();
    const frozen = await backend.freeze("vol", ample);
    const writer = await heldUpWriter(mount);
    for (const guard of guardsOf(process.pid)) process.kill(guard, "SIGSTOP");
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: false });
    await writer.done;
  });

  it("is thawed when a guard that is stopped lets its time pass", async () => {
    const mount = await makeMounted();
    const { frozen, writer } = await heldUpForATime(mount);
    for (const guard of guardsOf(process.pid)) process.kill(guard, "SIGSTOP");
    await writer.done;
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: false });
  });

  it("and left so by a process that is gone with its guard, is thawed by the next one", async () => {
    const mount = await makeMounted();
    const { frozen: left } = await leaveFrozen();
    const writer = await heldUpWriter(mount);
    expect(left).toBe(1);
    await backend.close();
    backend = await openBackend({ kind: ground.kind, root });
    await writer.done;
    expect(await note()).toEqual([]);
  });

  it("and left so where nobody could reach it, is thawed when it is frozen the next time", async () => {
    const mount = await makeMounted();
    const { devices } = JSON.parse(await (await leaveFrozen()).text);
    const hidden = join(root, "hidden");
    await fs.rename(join(root, "frozen", "vol"), hidden);
    await backend.close();
    backend = await openBackend({ kind: ground.kind, root });
    await fs.rename(hidden, join(root, "frozen", "vol"));
    expect(devices).toHaveLength(1);
    const writer = await heldUpWriter(mount);
    const frozen = await backend.freeze("vol", ample);
    await writer.done;
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: true });
    expect(await note()).toEqual([]);
  });

  it("and left so before the machine was started again, is left to whoever has frozen it since", async () => {
    const mount = await makeMounted();
    const { devices } = JSON.parse(await (await leaveFrozen()).text);
    await fs.writeFile(join(root, "frozen", "vol"), JSON.stringify({ bootId: "another", devices }));
    await backend.close();
    backend = await openBackend({ kind: ground.kind, root });
    expect(thawNow(mount.path)).toBe(true);
  });
}

/** As a process leaves it that is killed together with its guard; with the note it has written. */
async function leaveFrozen(): Promise<{ frozen: number; text: Promise<string> }> {
  const program = `
    import { openBackend } from ${JSON.stringify(join(import.meta.dirname, "../../src/storage/open.ts"))};
    const backend = await openBackend(${JSON.stringify({ kind: ground.kind, root })});
    await backend.freeze("vol", 600_000);
    const { guardsOf } = await import(${JSON.stringify(join(import.meta.dirname, "../fakes/freeze-guards.ts"))});
    const [guard] = guardsOf(process.pid);
    (await import("node:fs")).writeSync(1, String(guard));
    process.kill(guard, "SIGSTOP");
    process.kill(process.pid, "SIGKILL");`;
  const words = ["--disable-warning=ExperimentalWarning", "--input-type=module-typescript", "-e", program];
  const { signal, stdout } = spawnSync(process.execPath, words, { encoding: "utf8" });
  expect(signal).toBe("SIGKILL");
  process.kill(Number(stdout), "SIGKILL");
  await eventually("the guard being gone", async () => (existsSync(`/proc/${stdout}`) ? undefined : true));
  return { frozen: (await note()).length, text: fs.readFile(join(root, "frozen", "vol"), "utf8") };
}

function refused(it: It): void {
  const refusal = (work: Promise<FrozenVolume>) =>
    work.then(
      () => "none",
      ({ code, message }) => `${code}: ${message}`,
    );

  it("is not frozen a second time, by us or on top of somebody else's freeze", async () => {
    const mount = await makeMounted();
    const frozen = await backend.freeze("vol", ample);
    expect(await refusal(backend.freeze("vol", ample))).toMatch(/^VolumeBusy: .*frozen already/);
    await frozen.thaw();
    execFileSync("fsfreeze", ["--freeze", mount.path], { env });
    expect(await refusal(backend.freeze("vol", ample))).toMatch(/^VolumeBusy: .*somebody else has frozen it/);
    expect(thawNow(mount.path)).toBe(true);
  });

  it("is refused while this process itself writes to it", async () => {
    const mount = await makeMounted();
    const log = await fs.open(join(mount.path, "our.log"), "a");
    expect(await refusal(backend.freeze("vol", ample))).toMatch(/^Unsupported: .*the agent itself writes.*our\.log/);
    await log.close();
    const frozen = await backend.freeze("vol", ample);
    await frozen.thaw();
  });

  it("is refused when it is attached for reading only while somebody writes to its image", async () => {
    await backend.create("vol", sizes.ext4);
    const live = backend.livePath("vol");
    const loop = execFileSync("losetup", ["--find", "--show", "--read-only", live], { env, encoding: "utf8" }).trim();
    const forget = onInterrupt(() => spawnSync("losetup", ["--detach", loop], { env }));
    const writer = await fs.open(live, "r+");
    try {
      expect(await refusal(backend.freeze("vol", ample))).toMatch(/^VolumeBusy: .*open for writing/);
      await writer.close();
      const frozen = await backend.freeze("vol", ample);
      expect(frozen.isMounted).toBe(false);
      expect(await frozen.thaw()).toMatchObject({ wasFrozen: true });
    } finally {
      await writer.close().catch(() => undefined);
      execFileSync("losetup", ["--detach", loop], { env });
      forget();
    }
  });

  it("is refused when it is attached and not mounted", async () => {
    await backend.create("vol", sizes.ext4);
    const live = backend.livePath("vol");
    const loop = execFileSync("losetup", ["--find", "--show", live], { env, encoding: "utf8" }).trim();
    const detach = () => execFileSync("losetup", ["-d", loop], { env });
    const forget = onInterrupt(detach);
    try {
      expect(await refusal(backend.freeze("vol", ample))).toMatch(/^VolumeBusy: .*not mounted here/);
    } finally {
      detach();
      forget();
    }
  });
}

/** Which loop device has the image is told, whatever else is known of it. */
function attached(it: It, open: StorageContract["open"]): void {
  const attach = (path: string, ...options: string[]) => {
    const words = ["--find", "--show", ...options, path];
    const loop = execFileSync("losetup", words, { env, encoding: "utf8" }).trim();
    const forget = onInterrupt(() => spawnSync("losetup", ["--detach", loop], { env }));
    const detach = () => {
      execFileSync("losetup", ["--detach", loop], { env });
      forget();
    };
    return { loop, detach };
  };

  beforeAll(async () => {
    ground = await open();
  });
  afterAll(async () => {
    await ground.remove();
  });
  beforeEach(async () => {
    root = join(ground.path, `attached-${++count}`);
    backend = await openBackend({ kind: ground.kind, root });
    for (const volume of ["vol", "other"]) await backend.create(volume, sizes.ext4);
  });
  afterEach(() => backend.close());

  for (const options of [[], ["--read-only"]]) {
    it(`is told by the device's name, and is free once it is detached [${options}]`, async () => {
      const { loop, detach } = attach(backend.livePath("vol"), ...options);
      try {
        expect(await backend.attachedTo("vol")).toBe(loop);
        expect(await backend.attachedTo("other")).toBeUndefined();
      } finally {
        detach();
      }
      const isFree = async () => ((await backend.attachedTo("vol")) === undefined ? true : undefined);
      await eventually("it being free", isFree);
    });
  }

  it("is told under whatever name its image was attached by", async () => {
    const alias = join(root, "alias");
    await fs.link(backend.livePath("vol"), alias);
    const { loop, detach } = attach(alias);
    try {
      expect(await backend.attachedTo("vol")).toBe(loop);
    } finally {
      detach();
    }
  });
}

/** XFS keeps its log in need of a replay even when it is frozen; the others have nothing left to do. */
async function checkWhole(type: FileSystem, device: string): Promise<void> {
  const run = (command: string, ...words: string[]) => execFileSync(command, words, { env, stdio: "pipe" }).toString();
  if (type === "ext4") expect(run("dumpe2fs", "-h", device)).not.toContain("needs_recovery");
  if (type === "btrfs") run("btrfs", "check", "--readonly", device);
  const copy = await mountImage(device, { fs: type, isMade: true });
  expect(await fs.readFile(join(copy.path, "before"), "utf8")).toBe("before");
  await copy.unmount();
  if (type === "xfs") run("xfs_repair", "-n", "-f", device);
}
