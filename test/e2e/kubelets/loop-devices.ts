// The loop devices that have to do with one file system: those that agents' volumes on it are attached to, and those that a
// kubelet puts on top of them to keep raw block volumes. They outlive whoever made them.
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";

const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

export interface LoopDevice {
  /** `/dev/loop7`. */
  readonly name: string;
  readonly backingInode: number;
  /** Of the file system that the backing file is on, as `MAJOR:MINOR`. */
  readonly backingDevice: string;
}

/** The number of the file system that a path is on; it stays the same while that is in use, also when it is unmounted lazily. */
export function fileSystemOf(path: string): string {
  return deviceNumber(statSync(path).dev);
}

/** What is attached to files on a file system, whatever is on top first. */
export function loopDevicesOver(fileSystem: string): LoopDevice[] {
  const all = listLoopDevices();
  const onFiles = all.filter(({ backingDevice }) => backingDevice === fileSystem);
  const nodes = onFiles.map(({ name }) => statSync(name));
  const onDevices = all.filter(({ backingInode, backingDevice }) =>
    nodes.some(({ ino, dev }) => ino === backingInode && deviceNumber(dev) === backingDevice),
  );
  return [...onDevices, ...onFiles];
}

/** Takes them off; one that is in use goes with its last user. */
export function detachLoopDevices(devices: readonly LoopDevice[]): void {
  for (const { name } of devices) spawnSync("losetup", ["--detach", name], { env, stdio: "ignore" });
}

function listLoopDevices(): LoopDevice[] {
  const columns = ["--noheadings", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"];
  const listed = spawnSync("losetup", ["--list", ...columns], { env, encoding: "utf8" });
  if (listed.status !== 0) throw new Error(`losetup --list: ${listed.error?.message ?? listed.stderr}`);
  return parseLoopDevices(listed.stdout);
}

/** Lines of name, inode and device; there are none when nothing is attached. */
export function parseLoopDevices(text: string): LoopDevice[] {
  return text.split("\n").flatMap((line) => {
    const [name, inode, backingDevice] = line.trim().split(/\s+/);
    if (name === undefined || inode === undefined || backingDevice === undefined) return [];
    return [{ name, backingInode: Number(inode), backingDevice }];
  });
}

/** As the kernel writes device numbers, from what `stat` gives. */
export function deviceNumber(dev: number): string {
  const minorHigh = Math.floor(dev / 2 ** 20) % 2 ** 12;
  return `${Math.floor(dev / 2 ** 8) % 2 ** 12}:${minorHigh * 2 ** 8 + (dev % 2 ** 8)}`;
}
