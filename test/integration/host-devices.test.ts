// Loop devices as only a real kernel has them. Needs root.
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { afterEach, beforeEach, expect } from "@jest/globals";
import { openLog } from "../../src/base/log.ts";
import { attachmentsOf } from "../../src/storage/mounts.ts";
import { loopsOver, openRealHost, type RealHost } from "../fakes/real-host.ts";
import { needs } from "../needs.ts";

const mebibyte = 2 ** 20;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const it = needs("root");

let real: RealHost;
beforeEach(async () => {
  real = await openRealHost();
});
afterEach(async () => {
  await real.close();
});

const run = (command: string, ...words: string[]) => execFileSync(command, words, { env, stdio: "pipe" }).toString();

it("an image attached in a mount namespace that is gone since gets no second device", async () => {
  const image = await real.makeImage("live.img", 32 * mebibyte);
  const elsewhere = join(real.folder, "elsewhere");
  mkdirSync(elsewhere);
  // As a container does that has the agent's folder at another place, and ends.
  const script = 'mount --bind "$1" "$2" && losetup --find --show "$2/live.img"';
  const path = run("unshare", "--mount", "sh", "-c", script, "sh", real.folder, elsewhere).trim();
  try {
    const device = await real.host.attach(image, { isReadOnly: false });
    expect(device.path).toBe(path);
    expect(await real.host.devicesOf(await real.host.identify(image))).toEqual([device]);
    // The agent, which must hold its writers up, finds it as well.
    expect(await attachmentsOf(image)).toMatchObject([{ name: basename(path), isWritable: true }]);
  } finally {
    run("losetup", "--detach", path);
  }
});

it("an image that was attached by hand, in part, is not touched", async () => {
  const image = await real.makeImage("live.img", 32 * mebibyte);
  const path = run("losetup", "--find", "--show", "--offset", "1048576", image).trim();
  await expect(real.host.attach(image, { isReadOnly: false })).rejects.toMatchObject({
    code: "VolumeBusy",
    message: expect.stringContaining(`${path}, which shows only a part of it`),
  });
  expect(await real.host.devicesOf(await real.host.identify(image))).toEqual([]);
  expect(loopsOver(real.folder)).toEqual([path]);
});

it("a second device that somebody has made is told, and neither is used", async () => {
  const image = await real.makeImage("live.img", 32 * mebibyte);
  const paths = [1, 2].map(() => run("losetup", "--find", "--show", image).trim());
  const told = await real.host.attach(image, { isReadOnly: false }).catch((error: Error) => error.message);
  for (const path of paths) expect(told).toContain(path);
  expect(await real.host.devicesOf(await real.host.identify(image))).toHaveLength(2);
});

it("a device passes the page cache by or, where that cannot be, says so", async () => {
  const lines: string[] = [];
  const log = openLog({ name: "csi", level: "warn" }, { write: (line) => void lines.push(line) });
  const host = await real.reopen(log);
  const image = await real.makeImage("live.img", 32 * mebibyte);
  const device = await host.attach(image, { isReadOnly: false });
  const isDirect = (await readFile(`/sys/block/${basename(device.path)}/loop/dio`, "utf8")).trim() === "1";
  const isTold = lines.some((line) => line.includes("no direct I/O"));
  expect(isDirect).toBe(!isTold);
});

it("a device that is for reading only takes no writes", async () => {
  const image = await real.makeImage("live.img", 32 * mebibyte);
  const device = await real.host.attach(image, { isReadOnly: true });
  await expect(writeFile(device.path, "x", { flag: "r+" })).rejects.toThrow(/EACCES|EPERM|EROFS/);
});

it("names are taken as they are, whatever a shell would make of them", async () => {
  const image = await real.makeImage("a b; $(touch x) 'c\" \\d", 32 * mebibyte);
  const device = await real.host.attach(image, { isReadOnly: false });
  await real.host.format(device, "ext4");
  const path = join(real.kubeletDir, "a b; $(touch x) 'c\" \\d");
  await real.host.mount(device, path, { type: "ext4", flags: [], isReadOnly: false });
  expect(await real.host.mountAt(path)).toMatchObject({ path, device: device.number });
  await real.host.unmount(path);
  expect(await real.host.mountAt(path)).toBeUndefined();
});

it("what a device holds is told, whoever has made it", async () => {
  const image = await real.makeImage("live.img", 32 * mebibyte);
  const device = await real.host.attach(image, { isReadOnly: false });
  const seen = async () => JSON.stringify(await real.host.contentOf(device));
  run("mkswap", device.path);
  expect(await seen()).toContain("swap");
  // Its mark is gone, the rest of it is not.
  run("wipefs", "--all", device.path);
  expect(await seen()).toContain("unknown");
});
