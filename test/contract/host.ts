// What every Host promises: a node's devices, file systems, mounts and notes.
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect } from "@jest/globals";
import { codeOf } from "../../src/domain/errors.ts";
import type { FileSystemType } from "../../src/host/file-systems.ts";
import type { Host } from "../../src/host/host.ts";
import { HostError } from "../../src/host/host-error.ts";
import type { Device, ImageIdentity } from "../../src/host/loop-devices.ts";
import type { VolumeNote } from "../../src/host/volume-notes.ts";
import { eventually } from "../e2e/process.ts";

/** Where a Host under test lives. */
export interface HostGround {
  readonly host: Host;
  readonly kubeletDir: string;
  makeImage(name: string, sizeBytes: number): Promise<string>;
  growImage(path: string, sizeBytes: number): Promise<void>;
  /** Writes what no tool knows to its beginning. */
  scribble(path: string): Promise<void>;
  deleteImage(path: string): Promise<void>;
  close(): Promise<void>;
}

type It = (name: string, fn: () => Promise<void>, timeoutMs?: number) => void;

export interface HostContract {
  /** `test`, or what skips where the machine lacks a file system. */
  readonly it: (...fileSystems: ("xfs" | "btrfs")[]) => It;
  readonly open: () => Promise<HostGround>;
}

const mebibyte = 2 ** 20;
const sizes: Readonly<Record<FileSystemType, number>> = {
  ext4: 32 * mebibyte,
  xfs: 320 * mebibyte,
  btrfs: 256 * mebibyte,
};
const types = ["ext4", "xfs", "btrfs"] as const;
const ampleMs = 600_000;

let ground: HostGround;
let host: Host;

export function hostContract(implementation: string, { it, open }: HostContract): void {
  describe(`the host ${implementation}`, () => {
    beforeEach(async () => {
      ground = await open();
      host = ground.host;
    });
    afterEach(async () => {
      await ground.close();
    });

    describe("notes", () => notes(it()));
    describe("a device", () => devices(it()));
    describe("what is on it", () => contents(it));
    describe("a mount", () => mounts(it));
    describe("a bind", () => binds(it()));
    describe("growing", () => growing(it));
  });
}

// ---- Helpers ---------------------------------------------------------------------------------------------------------------

const place = (name: string) => join(ground.kubeletDir, name);
const writable = { isReadOnly: false };
const readOnly = { isReadOnly: true };
const itFor = (it: HostContract["it"], type: FileSystemType): It => (type === "ext4" ? it() : it(type));

async function attached(name: string, sizeBytes: number = sizes.ext4): Promise<{ image: string; device: Device }> {
  const image = await ground.makeImage(name, sizeBytes);
  return { image, device: await host.attach(image, writable) };
}

async function formatted(name: string, type: FileSystemType): Promise<{ image: string; device: Device }> {
  const made = await attached(name, sizes[type]);
  await host.format(made.device, type);
  return made;
}

async function mounted(name: string, type: FileSystemType = "ext4") {
  const made = await formatted(name, type);
  const path = place(name);
  await host.mount(made.device, path, { type, flags: [], isReadOnly: false });
  return { ...made, path };
}

async function devicesOf(image: string): Promise<readonly string[]> {
  return (await host.devicesOf(await host.identify(image))).map(({ path }) => path);
}

/** Other programs of a machine may look at a device for a moment, and it goes with its last user. */
async function gone(identity: ImageIdentity): Promise<void> {
  await eventually("the device being gone", async () =>
    (await host.devicesOf(identity)).length === 0 ? true : undefined,
  );
}

// ---- What is promised ------------------------------------------------------------------------------------------------------

function notes(it: It): void {
  const note: VolumeNote = {
    uid: "4f0c8a52-0000-4000-8000-000000000001",
    image: { path: "/data/live.img", device: "8:1", inode: "131", bootId: "boot" },
    formatting: "xfs",
    targets: ["/a"],
  };

  it("are what was written last, until they are removed", async () => {
    expect(await host.readNote("pvc-1")).toBeUndefined();
    await host.writeNote("pvc-1", note);
    await host.writeNote("pvc-1", { ...note, formatting: null, targets: [] });
    expect(await host.readNote("pvc-1")).toEqual({ ...note, formatting: null, targets: [] });
    expect(await host.readNote("pvc-2")).toBeUndefined();
    await host.removeNote("pvc-1");
    await host.removeNote("pvc-1");
    expect(await host.readNote("pvc-1")).toBeUndefined();
  });
}

function devices(it: It): void {
  it("of an image that is not there cannot be had", async () => {
    const missing = join(ground.kubeletDir, "missing");
    expect(codeOf(await host.identify(missing).catch((error: unknown) => error))).toBe("VolumeGone");
    expect(codeOf(await host.attach(missing, writable).catch((error: unknown) => error))).toBe("VolumeGone");
  });

  it("is the same however often it is asked for, also at once", async () => {
    const image = await ground.makeImage("a", sizes.ext4);
    expect(await devicesOf(image)).toEqual([]);
    const found = await Promise.all([1, 2, 3].map(() => host.attach(image, writable)));
    const [first] = found;
    expect(new Set(found.map(({ path }) => path)).size).toBe(1);
    expect(first?.path).toMatch(/^\/dev\/loop\d+$/);
    expect(first).toMatchObject({ isReadOnly: false, sizeBytes: sizes.ext4 });
    expect(await devicesOf(image)).toEqual([first?.path]);
  });

  it("is another one for another image", async () => {
    const [one, other] = [await attached("a"), await attached("b")];
    expect(one.device.number).not.toBe(other.device.number);
    expect(await devicesOf(one.image)).toEqual([one.device.path]);
  });

  it("that is for reading only is not given out for writing, and the other way round", async () => {
    const image = await ground.makeImage("a", sizes.ext4);
    const device = await host.attach(image, readOnly);
    expect(device.isReadOnly).toBe(true);
    expect(await host.attach(image, readOnly)).toEqual(device);
    const refusal = await host.attach(image, writable).catch((error: unknown) => error);
    expect([codeOf(refusal), String(refusal)]).toEqual(["VolumeBusy", expect.stringContaining(device.path)]);
    await host.detach(device);
    await host.attach(image, writable);
    expect(codeOf(await host.attach(image, readOnly).catch((error: unknown) => error))).toBe("VolumeBusy");
  });

  it("is gone once it is detached, and detaching it again changes nothing", async () => {
    const { image, device } = await attached("a");
    await host.detach(device);
    await host.detach(device);
    await gone(await host.identify(image));
  });

  it("is not found by what an image was called before the machine was started again", async () => {
    const { image } = await attached("a");
    expect(await host.devicesOf({ ...(await host.identify(image)), bootId: "another" })).toEqual([]);
  });

  it("is found although its image was deleted, by what is known of it", async () => {
    const { image, device } = await attached("a");
    const identity = await host.identify(image);
    await ground.deleteImage(image);
    expect(await host.devicesOf(identity)).toEqual([device]);
    await host.detach(device);
    await gone(identity);
  });

  it("is as large as its image when it is attached, and again when it is resized", async () => {
    const { image, device } = await attached("a");
    await ground.growImage(image, 2 * sizes.ext4);
    expect((await host.resize(device)).sizeBytes).toBe(2 * sizes.ext4);
    await ground.growImage(image, 3 * sizes.ext4);
    expect((await host.attach(image, writable)).sizeBytes).toBe(3 * sizes.ext4);
  });

  it("that is mounted goes with its last user", async () => {
    const { image, device, path } = await mounted("a");
    await host.detach(device);
    expect(await host.mountAt(path)).toMatchObject({ device: device.number });
    await host.unmount(path);
    await gone(await host.identify(image));
  });

  it("that was to go with its last user stays when it is attached again", async () => {
    const { image, device, path } = await mounted("a");
    await host.detach(device);
    expect(await host.attach(image, writable)).toEqual(device);
    await host.unmount(path);
    expect(await devicesOf(image)).toEqual([device.path]);
  });
}

function contents(it: HostContract["it"]): void {
  it()("is nothing on a fresh image", async () => {
    const { device } = await attached("a");
    expect(await host.contentOf(device)).toEqual({ kind: "blank" });
  });

  it()("is data when somebody has written what no tool knows", async () => {
    const image = await ground.makeImage("a", sizes.ext4);
    await ground.scribble(image);
    const device = await host.attach(image, writable);
    expect(await host.contentOf(device)).toMatchObject({ kind: "other" });
  });

  for (const type of types) {
    itFor(it, type)(
      `is the file system that was made on it: ${type}, also over another one`,
      async () => {
        const { device } = await attached("a", 320 * mebibyte);
        await host.format(device, "ext4");
        await host.format(device, type);
        expect(await host.contentOf(device)).toEqual({ kind: "fileSystem", type });
      },
      ampleMs,
    );
  }

  it()("is not made on a device that is mounted", async () => {
    const { device } = await mounted("a");
    await expect(host.format(device, "ext4")).rejects.toBeInstanceOf(HostError);
  });
}

function mounts(it: HostContract["it"]): void {
  for (const type of types) {
    itFor(it, type)(
      `of ${type} is told by its device, until it is unmounted`,
      async () => {
        const { device, path } = await mounted("a", type);
        expect(await host.mountAt(path)).toEqual({
          path,
          device: device.number,
          type,
          source: device.path,
          isReadOnly: false,
          broken: undefined,
        });
        expect(await host.mountsOf(device)).toEqual([path]);
        await host.unmount(path);
        expect(await host.mountAt(path)).toBeUndefined();
        expect(await host.mountsOf(device)).toEqual([]);
        await host.unmount(path);
      },
      ampleMs,
    );

    itFor(it, type)(
      `of ${type} for reading only is told so`,
      async () => {
        const { device } = await formatted("a", type);
        await host.mount(device, place("a"), { type, flags: ["noatime"], isReadOnly: true });
        expect(await host.mountAt(place("a"))).toMatchObject({ type, isReadOnly: true });
      },
      ampleMs,
    );

    itFor(it, type)(
      `of ${type} tells how much of it is used`,
      async () => {
        const { path } = await mounted("a", type);
        const there = await host.mountAt(path);
        const usage = there && (await host.usage(there));
        if (usage?.kind !== "fileSystem") throw new Error(`no usage of a file system: ${JSON.stringify(usage)}`);
        expect(usage.bytes.total).toBeGreaterThan(sizes[type] / 2);
        expect(usage.bytes.used).toBeLessThan(usage.bytes.total);
        expect(usage.inodes.total > 0).toBe(type !== "btrfs");
      },
      ampleMs,
    );
  }

  it()("of another type than there is fails, and leaves nothing mounted", async () => {
    const { device } = await formatted("a", "ext4");
    const how = { type: "xfs", flags: [], isReadOnly: true } as const;
    await expect(host.mount(device, place("a"), how)).rejects.toBeInstanceOf(HostError);
    expect(await host.mountAt(place("a"))).toBeUndefined();
  });

  it()("above another one is seen in its place, and both are taken away together", async () => {
    const { path } = await mounted("a");
    const { device } = await formatted("b", "ext4");
    await host.mount(device, path, { type: "ext4", flags: [], isReadOnly: false });
    expect(await host.mountAt(path)).toMatchObject({ device: device.number });
    await host.unmount(path);
    expect(await host.mountAt(path)).toBeUndefined();
  });

  it()("whose image was deleted is told as broken", async () => {
    const { image, path } = await mounted("a");
    await ground.deleteImage(image);
    expect(await host.mountAt(path)).toMatchObject({ broken: expect.stringContaining("was deleted") });
  });

  it()("is seen by pods only below the kubelet's folder", async () => {
    expect([place("a"), `${place("a")}/../../b`, "/elsewhere", ""].map((path) => host.reaches(path))).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });
}

function binds(it: It): void {
  it("shows a mounted folder at another path, until it is taken away with that", async () => {
    const { device, path } = await mounted("a");
    const target = place("pods/one/mount");
    await host.bind(path, target, { place: "folder", isReadOnly: false });
    expect(await host.mountAt(target)).toMatchObject({ device: device.number, type: "ext4", isReadOnly: false });
    expect(await host.mountsOf(device)).toEqual([path, target]);
    await host.unbind(target);
    await host.unbind(target);
    expect(await host.mountsOf(device)).toEqual([path]);
  });

  it("for reading only is so alone: its source and other binds are not", async () => {
    const { path } = await mounted("a");
    const [one, other] = [place("one"), place("other")];
    await host.bind(path, one, { place: "folder", isReadOnly: true });
    await host.bind(path, other, { place: "folder", isReadOnly: false });
    const found = await Promise.all([one, other, path].map((at) => host.mountAt(at)));
    expect(found.map((mount) => mount?.isReadOnly)).toEqual([true, false, false]);
  });

  it("shows a device itself, and how large it is", async () => {
    const { device } = await attached("a");
    const target = place("pods/one/device");
    await host.bind(device.path, target, { place: "file", isReadOnly: false });
    const there = await host.mountAt(target);
    expect(there).toMatchObject({ device: device.number, type: "block", isReadOnly: false, broken: undefined });
    expect(there && (await host.usage(there))).toEqual({ kind: "block", totalBytes: sizes.ext4 });
    expect(await host.mountsOf(device)).toEqual([target]);
    await host.unbind(target);
    expect(await host.mountAt(target)).toBeUndefined();
  });

  it("shows a device for reading only", async () => {
    const { device } = await attached("a");
    await host.bind(device.path, place("device"), { place: "file", isReadOnly: true });
    expect(await host.mountAt(place("device"))).toMatchObject({ type: "block", isReadOnly: true });
    expect(await host.mountsOf(device)).toEqual([place("device")]);
  });

  it("outlives the mount it was made of", async () => {
    const { device, path } = await mounted("a");
    await host.bind(path, place("one"), { place: "folder", isReadOnly: false });
    await host.unmount(path);
    expect(await host.mountAt(place("one"))).toMatchObject({ device: device.number });
  });
}

function growing(it: HostContract["it"]): void {
  for (const type of types) {
    itFor(it, type)(
      `a mounted ${type} takes up its larger device, or tells that it cannot`,
      async () => {
        const { image, device, path } = await mounted("a", type);
        await ground.growImage(image, 2 * sizes[type]);
        const larger = await host.resize(device);
        const growth = await host.grow(larger, path, type);
        if (growth.kind === "refused") {
          expect(type).toBe("ext4");
          await host.unmount(path);
          await host.growUnmounted(larger, type);
          await host.mount(larger, path, { type, flags: [], isReadOnly: false });
        }
        const there = await host.mountAt(path);
        const usage = there && (await host.usage(there));
        expect(usage?.kind === "fileSystem" && usage.bytes.total).toBeGreaterThan(1.5 * sizes[type]);
        // Again there is nothing left to do.
        expect(await host.grow(larger, path, type)).toEqual({ kind: "done" });
      },
      ampleMs,
    );
  }

  it()("what is mounted is not grown from below", async () => {
    const { device } = await mounted("a");
    await expect(host.growUnmounted(device, "ext4")).rejects.toBeInstanceOf(HostError);
  });
}
