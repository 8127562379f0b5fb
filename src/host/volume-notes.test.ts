import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { openVolumeNotes, parseVolumeNote, type VolumeNote } from "./volume-notes.ts";

const note: VolumeNote = {
  uid: "4f0c8a52-0000-4000-8000-000000000001",
  image: { path: "/data/live.img", device: "8:1", inode: "131", bootId: "boot" },
  formatting: "xfs",
  targets: ["/var/lib/kubelet/pods/a/mount"],
};

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "longshore-notes-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

test("a note is what was written last, also for the next process, until it is removed", async () => {
  const notes = await openVolumeNotes(join(folder, "a", "b"));
  expect(await notes.read("pvc-1")).toBeUndefined();
  await notes.write("pvc-1", note);
  await notes.write("pvc-1", { ...note, formatting: null });
  await notes.write("pvc-2", note);
  const others = await openVolumeNotes(join(folder, "a", "b"));
  expect(await others.read("pvc-1")).toEqual({ ...note, formatting: null });
  await others.remove("pvc-1");
  await others.remove("pvc-1");
  expect(await notes.read("pvc-1")).toBeUndefined();
  expect(await notes.read("pvc-2")).toEqual(note);
});

test("what an interrupted write has left is no note, and does not stand in the way", async () => {
  const notes = await openVolumeNotes(folder);
  await writeFile(join(folder, "pvc-1.json.unfinished"), '{"uid":');
  expect(await notes.read("pvc-1")).toBeUndefined();
  await notes.write("pvc-1", note);
  expect(await readdir(folder)).toEqual(["pvc-1.json"]);
});

test("a damaged note is told, never taken for none", async () => {
  const notes = await openVolumeNotes(folder);
  await writeFile(join(folder, "pvc-1.json"), "");
  await expect(notes.read("pvc-1")).rejects.toThrow("pvc-1.json is damaged");
});

test.each(["../a", "a/b", "", ".", ".."])("no path leads out of the folder: %p", async (volume) => {
  const notes = await openVolumeNotes(folder);
  await expect(notes.read(volume)).rejects.toThrow("not the name of a volume");
});

test.each([
  ["not JSON", "{"],
  ["nothing", ""],
  ["null", "null"],
  ["a list", "[]"],
  ["no uid", JSON.stringify({ ...note, uid: 1 })],
  ["no image", JSON.stringify({ ...note, image: "/data/live.img" })],
  ["half an image", JSON.stringify({ ...note, image: { ...note.image, inode: undefined } })],
  ["a file system that is not of ours", JSON.stringify({ ...note, formatting: "ext3" })],
  ["nothing about formatting", JSON.stringify({ ...note, formatting: undefined })],
  ["targets that are none", JSON.stringify({ ...note, targets: [1] })],
])("%s is no note", (_, text) => {
  expect(parseVolumeNote(text)).toBeUndefined();
});

test("a note is read as it was written", () => {
  expect(parseVolumeNote(JSON.stringify(note))).toEqual(note);
});
