// Mounts as only a real kernel has them: in use, broken, seen from other mount namespaces. Needs root.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { hash } from "node:crypto";
import { mkdirSync, readlinkSync } from "node:fs";
import { mkdir, open, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect } from "@jest/globals";
import { openLog } from "../../src/base/log.ts";
import { parseMountTable, topmostAt } from "../../src/base/mount-table.ts";
import type { FileSystemType } from "../../src/host/file-systems.ts";
import type { Device } from "../../src/host/loop-devices.ts";
import { eventually } from "../e2e/process.ts";
import { mountsBelow, openRealHost, type RealHost } from "../fakes/real-host.ts";
import { onInterrupt } from "../interrupt.ts";
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
const place = (name: string) => join(real.kubeletDir, name);

async function mounted(name: string, type: FileSystemType = "ext4"): Promise<{ device: Device; path: string }> {
  const image = await real.makeImage(`${name}.img`, type === "xfs" ? 320 * mebibyte : 32 * mebibyte);
  const device = await real.host.attach(image, { isReadOnly: false });
  await real.host.format(device, type);
  await real.host.mount(device, place(name), { type, flags: [], isReadOnly: false });
  return { device, path: place(name) };
}

it("what is in use is not taken away, neither now nor later", async () => {
  const { path } = await mounted("a");
  const file = await open(join(path, "file"), "w");
  await expect(real.host.unmount(path)).rejects.toMatchObject({ code: "VolumeBusy" });
  await file.write("still there");
  await file.close();
  expect(await readFile(join(path, "file"), "utf8")).toBe("still there");
  await real.host.unmount(path);
  expect(mountsBelow(real.folder)).toEqual([]);
});

it("a place that has something in it stays, with that", async () => {
  await mkdir(place("target"));
  await writeFile(join(place("target"), "file"), "precious");
  await expect(real.host.unbind(place("target"))).rejects.toThrow("is not empty; it is left as it is");
  await writeFile(place("device"), "precious");
  await expect(real.host.unbind(place("device"))).rejects.toThrow("is not empty; it is left as it is");
  expect(await readFile(join(place("target"), "file"), "utf8")).toBe("precious");
  expect(await readFile(place("device"), "utf8")).toBe("precious");
});

it("through a bind for reading only nothing is written, through its source it is", async () => {
  const { path } = await mounted("a");
  const target = place("target");
  await real.host.bind(path, target, { place: "folder", isReadOnly: true });
  await writeFile(join(path, "file"), "written");
  await expect(writeFile(join(target, "file"), "x")).rejects.toThrow("EROFS");
  expect(await readFile(join(target, "file"), "utf8")).toBe("written");
  await real.host.unbind(target);
  await expect(stat(target)).rejects.toThrow("ENOENT");
  // Nothing is left of how it was made.
  expect(mountsBelow(real.folder)).toEqual([path]);
});

it("a bind that fails leaves nothing mounted", async () => {
  const { path } = await mounted("a");
  // It gets as far as its target, for which there is no room.
  await writeFile(place("file"), "");
  const target = join(place("file"), "target");
  const bound = real.host.bind(path, target, { place: "folder", isReadOnly: true });
  await expect(bound).rejects.toThrow(`cannot make ${target}`);
  expect(mountsBelow(real.folder)).toEqual([path]);
});

it("what an interrupted bind has left is taken away by unbinding, and does not add up", async () => {
  const { path } = await mounted("a");
  const target = place("target");
  const via = join(real.stateDir, "private", hash("sha256", target).slice(0, 32));
  const interrupt = () => {
    mkdirSync(via);
    run("mount", "--bind", path, via);
  };
  interrupt();
  await real.host.bind(path, target, { place: "folder", isReadOnly: true });
  expect(mountsBelow(real.folder)).toEqual([path, target]);
  interrupt();
  await real.host.unbind(target);
  expect(mountsBelow(real.folder)).toEqual([path]);
});

/** A mount namespace that gets what is mounted here, as the kubelet's does, or keeps its copy of it; ended with the test. */
async function other(propagation: "slave" | "private"): Promise<{ child: ChildProcess; table: () => Promise<string> }> {
  const child = spawn("unshare", ["--mount", "--propagation", propagation, "sleep", "600"], { env, stdio: "ignore" });
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  child.once("exit", forget);
  await eventually("the other mount namespace", async () =>
    readlinkSync(`/proc/${child.pid}/exe`).endsWith("sleep") ? true : undefined,
  );
  return { child, table: () => readFile(`/proc/${child.pid}/mountinfo`, "utf8") };
}

it("a bind for reading only is so in other mount namespaces as well", async () => {
  run("mount", "--bind", real.kubeletDir, real.kubeletDir);
  run("mount", "--make-shared", real.kubeletDir);
  const { path } = await mounted("a");
  const { child, table } = await other("slave");
  try {
    await real.host.bind(path, place("target"), { place: "folder", isReadOnly: true });
    await real.host.bind(path, place("other"), { place: "folder", isReadOnly: false });
    const entries = parseMountTable(await table());
    expect(topmostAt(entries, place("target"))).toMatchObject({ isReadOnly: true });
    expect(topmostAt(entries, place("other"))).toMatchObject({ isReadOnly: false });
    await real.host.unbind(place("target"));
    expect(topmostAt(parseMountTable(await table()), place("target"))).toBeUndefined();
  } finally {
    child.kill("SIGKILL");
  }
});

it("an ext4 that a container has kept its copy of is mounted here again, and not touched from below", async () => {
  const { device, path } = await mounted("a");
  await writeFile(join(path, "file"), "content");
  const { child } = await other("private");
  try {
    await real.host.unmount(path);
    await real.host.mount(device, path, { type: "ext4", flags: [], isReadOnly: false });
    expect(await readFile(join(path, "file"), "utf8")).toBe("content");
    await real.host.unmount(path);
    await expect(real.host.growUnmounted(device, "ext4")).rejects.toThrow("is in use elsewhere");
  } finally {
    child.kill("SIGKILL");
  }
});

it("a kubelet's folder whose mounts nobody else would see is told at the start", async () => {
  const warnings = async () => {
    const lines: string[] = [];
    await real.reopen(openLog({ name: "csi", level: "warn" }, { write: (line) => void lines.push(line) }));
    return lines.filter((line) => line.includes("is not shared")).length;
  };
  run("mount", "--bind", real.kubeletDir, real.kubeletDir);
  run("mount", "--make-private", real.kubeletDir);
  expect(await warnings()).toBe(1);
  run("mount", "--make-shared", real.kubeletDir);
  expect(await warnings()).toBe(0);
});

needs("root", "xfs")("a file system that has shut itself down is told as broken, and can be taken away", async () => {
  const { path } = await mounted("a", "xfs");
  run("xfs_io", "-x", "-c", "shutdown", path);
  expect(await real.host.mountAt(path)).toMatchObject({ broken: "it answers EIO" });
  await real.host.unmount(path);
  expect(await real.host.mountAt(path)).toBeUndefined();
});

it("an ext4 that was not unmounted is put in order before it is mounted", async () => {
  const { device, path } = await mounted("a");
  await writeFile(join(path, "file"), "content");
  run("sync", "--file-system", path);
  // As after a loss of power: what is on the device now, taken away and put back.
  const copy = await real.makeImage("copy.img", 0);
  run("dd", `if=${device.path}`, `of=${copy}`, "bs=1M", "iflag=direct", "status=none");
  const again = await real.host.attach(copy, { isReadOnly: false });
  expect(run("dumpe2fs", "-h", again.path)).toContain("needs_recovery");
  await real.host.mount(again, place("copy"), { type: "ext4", flags: [], isReadOnly: false });
  expect(await readFile(join(place("copy"), "file"), "utf8")).toBe("content");
});

it("an ext4 that needs a person is not mounted, and says so", async () => {
  const { device, path } = await mounted("a");
  await real.host.unmount(path);
  // Its root folder is no folder any more.
  run("debugfs", "-w", "-R", "clri <2>", device.path);
  run("debugfs", "-w", "-R", "set_super_value state 2", device.path);
  const how = { type: "ext4", flags: [], isReadOnly: false } as const;
  await expect(real.host.mount(device, path, how)).rejects.toThrow("needs a repair by hand");
  expect(await real.host.mountAt(path)).toBeUndefined();
});
