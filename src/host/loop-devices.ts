// Loop devices over images. An image is known by its inode, for the name by which a device was attached may be one of another mount
// namespace, which is gone since. No image ever gets a second device: two would not see each other's writes.
import * as fs from "node:fs/promises";
import { renderDevice } from "../base/device-number.ts";
import { keyedLock } from "../base/keyed-lock.ts";
import type { Log } from "../base/log.ts";
import { unlessErrno } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import { type Commands, failed, quickMsMax } from "./command.ts";
import { readText } from "./durable-file.ts";
import { attempt, HostError } from "./host-error.ts";

/** Which file an image is. It holds until the machine is started again: device numbers are given out anew then. */
export interface ImageIdentity {
  readonly path: string;
  /** Of the file system it lies on, as `8:1`. */
  readonly device: string;
  readonly inode: string;
  /** The run of the machine in which that was seen. */
  readonly bootId: string;
}

export interface Device {
  /** Such as `/dev/loop3`. */
  readonly path: string;
  /** Such as `7:3`. */
  readonly number: string;
  readonly isReadOnly: boolean;
  readonly sizeBytes: number;
}

export interface LoopDevices {
  identify(path: string): Promise<ImageIdentity>;
  devicesOf(image: ImageIdentity): Promise<Device[]>;
  attach(path: string, options: { readonly isReadOnly: boolean }): Promise<Device>;
  resize(device: Device): Promise<Device>;
  detach(device: Device): Promise<void>;
}

/** A row of what `losetup` lists. */
export interface LoopRow {
  readonly path: string;
  readonly number: string;
  /** `undefined` when the device could not be opened and asked. */
  readonly behind: { readonly device: string; readonly inode: string } | undefined;
  readonly image: string;
  /** Its image has no name any more. */
  readonly isDeleted: boolean;
  readonly isReadOnly: boolean;
  readonly isDirect: boolean;
  /** It shows its image from the first byte to the last. */
  readonly isWhole: boolean;
  /** It was detached while it was in use, and goes with its last user. */
  readonly isGoing: boolean;
}

const columns = "NAME,MAJ:MIN,BACK-INO,BACK-MAJ:MIN,BACK-FILE,RO,DIO,AUTOCLEAR,OFFSET,SIZELIMIT";
const listing = ["losetup", "--list", "--json", "--output", columns];

/** Reads what `losetup --list --json` writes; without any device some versions write nothing at all. */
export function parseLoopDevices(text: string): LoopRow[] {
  if (text.trim() === "") return [];
  // Inode numbers may be larger than numbers in JavaScript are exact. Within strings a quote is escaped, so this finds only the field.
  const exact = text.replace(/"back-ino":\s*(\d+)/g, '"back-ino":"$1"');
  const { loopdevices = [] } = JSON.parse(exact) as { loopdevices?: readonly Readonly<Record<string, unknown>>[] };
  return loopdevices.map((row) => {
    const field = (name: string) => String(row[name] ?? "").replaceAll(" ", "");
    const inode = field("back-ino");
    const device = field("back-maj:min");
    const isKnown = /^[1-9]\d*$/.test(inode) && /^\d+:\d+$/.test(device);
    const image = String(row["back-file"] ?? "");
    return {
      path: field("name"),
      number: field("maj:min"),
      behind: isKnown ? { device, inode } : undefined,
      image: image.replace(deleted, ""),
      isDeleted: deleted.test(image),
      isReadOnly: isSet(row.ro),
      isDirect: isSet(row.dio),
      isWhole: Number(field("offset")) === 0 && Number(field("sizelimit")) === 0,
      isGoing: isSet(row.autoclear),
    };
  });
}

const deleted = / \(deleted\)$/;

/** A flag, as older and newer versions write it. */
function isSet(value: unknown): boolean {
  return value === true || value === 1 || value === "1";
}

export function openLoopDevices({ commands, log }: { commands: Commands; log: Log }): LoopDevices {
  // losetup looks for a free device and then takes it, and gives up when others are quicker too often.
  const lock = keyedLock();

  async function rowsOf(image: ImageIdentity): Promise<LoopRow[]> {
    if (image.bootId !== (await bootId())) return [];
    const rows = parseLoopDevices(await commands.run(listing, quickMsMax));
    const unknown = rows.find(({ behind, image: path }) => behind === undefined && path === image.path);
    if (unknown !== undefined) {
      throw new HostError(`cannot tell which file ${unknown.path} is over; is the node's /dev mounted here?`);
    }
    const same = rows.filter(({ behind }) => behind?.inode === image.inode && behind.device === image.device);
    const isNamed = (row: LoopRow) => ownName(row.image) === ownName(image.path);
    if (same.every(isNamed) || (await isStillThere(image))) return same;
    // The image was deleted, and a later one may have its inode number.
    return same.filter(isNamed);
  }

  return {
    identify,
    async devicesOf(image) {
      const rows = await rowsOf(image);
      return Promise.all(rows.filter(({ isWhole }) => isWhole).map(deviceOf));
    },
    attach: (path, { isReadOnly }) =>
      lock.run("attach", async () => {
        const image = await identify(path);
        const present = await rowsOf(image);
        checkPresent(path, present, isReadOnly);
        if (present[0] === undefined || present[0].isGoing) {
          // It finds the one that is there, which then stays.
          const words = ["losetup", "--find", "--nooverlap", ...(isReadOnly ? ["--read-only"] : []), path];
          await commands.run(words, quickMsMax);
        }
        const rows = await rowsOf(image);
        checkPresent(path, rows, isReadOnly);
        const [row] = rows;
        if (row === undefined) throw new HostError(`${path} was attached, and is not any more`);
        await useDirectIo(row);
        return refreshed(row.path, row);
      }),
    resize: (device) => refreshed(device.path, device),
    async detach({ path, number }) {
      const words = ["losetup", "--detach", path];
      const outcome = await commands.attempt(words, quickMsMax);
      if (outcome.status === 0) return;
      // Gone meanwhile, with its last user.
      if ((await backingFile(number)) !== undefined) throw failed(words, outcome);
    },
  };

  /** Has the device be as large as its image is by now. */
  async function refreshed(path: string, known: { number: string; isReadOnly: boolean }): Promise<Device> {
    await commands.run(["losetup", "--set-capacity", path], quickMsMax);
    return deviceOf({ path, number: known.number, isReadOnly: known.isReadOnly });
  }

  /** Else every block would be held in memory twice, and a flush would go through two caches. */
  async function useDirectIo({ path, image, isDirect }: LoopRow): Promise<void> {
    if (isDirect) return;
    const { status, stderr } = await commands.attempt(["losetup", "--direct-io=on", path], quickMsMax);
    if (status === 0) return;
    log.warn({ device: path, image, why: stderr.trim() }, "no direct I/O: the device goes through the page cache");
  }
}

async function deviceOf({ path, number, isReadOnly }: Omit<Device, "sizeBytes">): Promise<Device> {
  return { path, number, isReadOnly, sizeBytes: await deviceBytes(number) };
}

const sectorBytes = 512;

/** How large a block device is at this moment. */
export async function deviceBytes(number: string): Promise<number> {
  const sectors = await readText(`/sys/dev/block/${number}/size`);
  if (sectors === undefined) throw new HostError(`there is no block device ${number}`);
  return Number(sectors) * sectorBytes;
}

/** What a loop device is over, as the kernel names it; `undefined` when it is over nothing, or is no loop device. */
export function backingFile(number: string): Promise<string | undefined> {
  return readText(`/sys/dev/block/${number}/loop/backing_file`);
}

/** Throws `VolumeBusy` for devices over the image that cannot be taken as they are. */
export function checkPresent(path: string, rows: readonly LoopRow[], isReadOnly: boolean): void {
  const [row, ...others] = rows;
  if (row === undefined) return;
  const why = complaints(row, isReadOnly).find(([isSo]) => isSo)?.[1];
  const told = others.length > 0 ? "and only one may be: what one writes the other does not see" : why;
  if (told === undefined) return;
  const names = rows.map((one) => one.path).join(" and ");
  throw new LongshoreError("VolumeBusy", `${path} is attached as ${names}, ${told}; detach it with losetup -d first`);
}

function complaints(row: LoopRow, isReadOnly: boolean): readonly (readonly [boolean, string])[] {
  return [
    [row.isDeleted, "by a name that was deleted"],
    [!row.isWhole, "which shows only a part of it"],
    [row.isReadOnly && !isReadOnly, "for reading only"],
    [!row.isReadOnly && isReadOnly, "for writing"],
  ];
}

/** The part of an image's path that every mount namespace has, and no other image: the volume's folder, and the file in it. */
function ownName(path: string): string {
  return path.split("/").slice(-2).join("/");
}

async function isStillThere({ path, device, inode }: ImageIdentity): Promise<boolean> {
  const found = await statsOf(path);
  return found !== undefined && renderDevice(found.dev) === device && String(found.ino) === inode;
}

function statsOf(path: string) {
  return attempt(`look at ${path}`, () => unlessErrno(["ENOENT", "ENOTDIR"], () => fs.stat(path, { bigint: true })));
}

async function identify(path: string): Promise<ImageIdentity> {
  const found = await statsOf(path);
  if (found === undefined || !found.isFile()) {
    const text = `the image ${path} is not there; is the agent's data folder mounted here at the same path?`;
    throw new LongshoreError("VolumeGone", text);
  }
  return { path, device: renderDevice(found.dev), inode: String(found.ino), bootId: await bootId() };
}

async function bootId(): Promise<string> {
  const id = await readText("/proc/sys/kernel/random/boot_id");
  if (id === undefined) throw new HostError("/proc/sys/kernel/random/boot_id is missing");
  return id;
}
