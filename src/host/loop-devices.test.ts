import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { silentLog } from "../base/log.ts";
import type { Commands } from "./command.ts";
import { checkPresent, type LoopRow, openLoopDevices, parseLoopDevices } from "./loop-devices.ts";

const plain = {
  name: "/dev/loop3",
  "maj:min": "7:3",
  "back-ino": 131,
  "back-maj:min": "8:1",
  "back-file": "/var/lib/longshore/volumes/a/live.img",
  ro: false,
  dio: true,
  autoclear: false,
  offset: 0,
  sizelimit: 0,
};
const read: LoopRow = {
  path: "/dev/loop3",
  number: "7:3",
  behind: { device: "8:1", inode: "131" },
  image: "/var/lib/longshore/volumes/a/live.img",
  isDeleted: false,
  isReadOnly: false,
  isDirect: true,
  isWhole: true,
  isGoing: false,
};
const listed = (...rows: object[]) => JSON.stringify({ loopdevices: rows });

/** What it is about, what losetup says differently, what is read differently. */
const rows: readonly (readonly [string, object, Partial<LoopRow>])[] = [
  ["a plain one", {}, {}],
  ["one with space around its numbers", { "maj:min": "  7:3  ", "back-maj:min": "       8:1  " }, {}],
  ["one with texts for flags", { ro: "1", dio: 0, offset: "0", sizelimit: "0" }, { isReadOnly: true, isDirect: false }],
  ["one that is for reading only", { ro: true }, { isReadOnly: true }],
  ["one without direct I/O", { dio: false }, { isDirect: false }],
  ["one that goes with its last user", { autoclear: true }, { isGoing: true }],
  ["one that begins within its image", { offset: 4096 }, { isWhole: false }],
  ["one that ends within its image", { sizelimit: 4096 }, { isWhole: false }],
  ["one whose image was deleted", { "back-file": "/a/live.img (deleted)" }, { image: "/a/live.img", isDeleted: true }],
  ["one whose name only begins so", { "back-file": "/a (deleted)/live.img" }, { image: "/a (deleted)/live.img" }],
  ["one that could not be asked", { "back-ino": null, "back-maj:min": null }, { behind: undefined }],
  ["one that answered only half of it", { "back-maj:min": "" }, { behind: undefined }],
  ["one on a btrfs", { "back-maj:min": "0:45" }, { behind: { device: "0:45", inode: "131" } }],
];

test.each(rows)("%s is read", (_, said, expected) => {
  expect(parseLoopDevices(listed({ ...plain, ...said }))).toEqual([{ ...read, ...expected }]);
});

test("large inode numbers are read to the last digit", () => {
  const text = listed(plain).replace('"back-ino":131', '"back-ino": 18446744073709551557');
  expect(parseLoopDevices(text)[0]?.behind?.inode).toBe("18446744073709551557");
});

test("a file whose name looks like a field stays what it is", () => {
  const name = '/a/"back-ino": 7';
  expect(parseLoopDevices(listed({ ...plain, "back-file": name }))).toEqual([{ ...read, image: name }]);
});

test.each(["", "\n", '{"loopdevices": []}', "{}"])("%p is a node without loop devices", (text) => {
  expect(parseLoopDevices(text)).toEqual([]);
});

/** Devices over the image, whether it is asked for reading only, what is said about them. */
const presences: readonly (readonly [readonly Partial<LoopRow>[], boolean, string | undefined])[] = [
  [[], false, undefined],
  [[{}], false, undefined],
  [[{ isReadOnly: true }], true, undefined],
  [[{ isReadOnly: true }], false, "for reading only"],
  [[{}], true, "for writing"],
  [[{ isDeleted: true }], false, "a name that was deleted"],
  [[{ isWhole: false }], false, "only a part"],
  [[{}, { path: "/dev/loop4" }], false, "/dev/loop3 and /dev/loop4, and only one may be"],
];

test.each(presences)("of %j, read-only %s, is said: %s", (present, isReadOnly, expected) => {
  const rowsPresent = present.map((row) => ({ ...read, ...row }));
  const check = () => checkPresent("/a/live.img", rowsPresent, isReadOnly);
  if (expected === undefined) expect(check).not.toThrow();
  else expect(check).toThrow(expected);
});

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "longshore-loops-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** The image at a path of the folder, and what is found over it once `losetup` shows its inode under another name. */
async function noted() {
  const image = join(folder, "live.img");
  await writeFile(image, "");
  let text = "";
  const commands: Commands = {
    attempt: async () => ({ status: 0, stdout: text, stderr: "" }),
    run: async () => text,
  };
  const loops = openLoopDevices({ commands, log: silentLog });
  const identity = await loops.identify(image);
  const { inode, device } = identity;
  const devicesOver = (name: string) => {
    const row = { ...plain, "maj:min": "7:none", "back-ino": inode, "back-maj:min": device, "back-file": name };
    text = listed(row);
    // Whether it is taken for the image's shows by its size being asked for.
    return loops.devicesOf(identity).then(
      (found) => found.length,
      (error: Error) => error.message,
    );
  };
  return { image, devicesOver };
}

const taken = "there is no block device 7:none";

test("an image that is there has its device, whatever another mount namespace has called it", async () => {
  const { devicesOver } = await noted();
  expect(await devicesOver("/elsewhere/a/live.img")).toBe(taken);
});

test("an image that was deleted has its device, but not that of a later image with its inode number", async () => {
  const { image, devicesOver } = await noted();
  await writeFile(join(folder, "other"), "");
  for (const end of [() => rename(join(folder, "other"), image), () => rm(image)]) {
    await end();
    expect(await devicesOver(`${image} (deleted)`)).toBe(taken);
    expect(await devicesOver("/var/lib/longshore/volumes/b/live.img")).toBe(0);
  }
});
