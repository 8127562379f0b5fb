import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect } from "@jest/globals";
import { needs } from "../needs.ts";
import { mountLoop } from "./loop-fs.ts";

const isMounted = (path: string) => readFileSync("/proc/mounts", "utf8").includes(path);

needs("root", "xfs")("a loop file system is there until it is unmounted, twice as well as once", async () => {
  const loop = await mountLoop({ fs: "xfs", sizeBytes: 300 * 2 ** 20 });
  await writeFile(join(loop.path, "file"), "content");
  expect(isMounted(loop.path)).toBe(true);
  await loop.unmount();
  await loop.unmount();
  expect(isMounted(loop.path)).toBe(false);
  expect(existsSync(dirname(loop.path))).toBe(false);
});

needs("root", "xfs")(
  "a disk put back is what it was when it was saved, down to its inode numbers, as often as asked",
  async () => {
    const loop = await mountLoop({ fs: "xfs", sizeBytes: 300 * 2 ** 20 });
    const file = join(loop.path, "file");
    await writeFile(file, "before");
    const { ino, birthtimeMs } = await stat(file);
    await expect(loop.save("old")).rejects.toThrow("detach it first");
    await loop.detach();
    await loop.save("old");
    for (const _ of [1, 2]) {
      await loop.attach();
      await writeFile(file, "after");
      await writeFile(join(loop.path, "another"), "after");
      await loop.detach();
      await loop.restore("old");
      await loop.attach();
      expect(await readFile(file, "utf8")).toBe("before");
      expect(await stat(file)).toMatchObject({ ino, birthtimeMs });
      expect(existsSync(join(loop.path, "another"))).toBe(false);
      await loop.detach();
    }
    await loop.unmount();
    expect(existsSync(dirname(loop.path))).toBe(false);
  },
);

needs("root", "xfs")("one that cannot be made leaves nothing", async () => {
  const mounts = readFileSync("/proc/mounts", "utf8").split("longshore-loop-none").length;
  await expect(mountLoop({ fs: "xfs", sizeBytes: 2 ** 20 })).rejects.toThrow(/mkfs.xfs/);
  expect(readFileSync("/proc/mounts", "utf8").split("longshore-loop-none").length).toBe(mounts);
});

// The program that is interrupted uses what it mounted, so that a plain umount would be refused.
const program = `
  import { openSync } from "node:fs";
  import { mountLoop } from ${JSON.stringify(join(import.meta.dirname, "loop-fs.ts"))};
  const loop = await mountLoop({ fs: "xfs", sizeBytes: 300 * 2 ** 20 });
  openSync(loop.path + "/file", "w");
  console.log(loop.path);
  if (process.argv[1] === "throw") throw new Error("nobody catches this");
  setInterval(() => undefined, 1000);
`;

for (const end of ["SIGINT", "SIGTERM", "SIGHUP", "throw"] as const) {
  needs("root", "xfs")(`one whose program ends by ${end} is taken away`, async () => {
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program, end], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const exited = new Promise((resolve) => child.once("exit", resolve));
    const path = await new Promise<string>((resolve) => {
      child.stdout.once("data", (line: Buffer) => resolve(line.toString().trim()));
    });
    if (end !== "throw") child.kill(end);
    await exited;
    expect(path).toMatch(/longshore-loop-/);
    expect(isMounted(path)).toBe(false);
    expect(existsSync(dirname(path))).toBe(false);
  });
}
