import { test } from "@jest/globals";
import { mountLoop } from "../fakes/loop-fs.ts";
import { temporaryFolder } from "../fakes/temporary-folder.ts";
import { needs } from "../needs.ts";
import { freezeContract } from "./freeze.ts";
import { diskFullContract, storageContract } from "./storage.ts";

storageContract("copy, in a temporary folder", {
  it: test,
  async open() {
    return { kind: "copy", ...(await temporaryFolder("copy")) };
  },
});

freezeContract("copy", {
  it: needs("root"),
  async open() {
    return { kind: "copy", ...(await temporaryFolder("frozen")) };
  },
});

diskFullContract("copy, on a small ext4", {
  it: needs("root"),
  async open() {
    const { path, unmount } = await mountLoop({ fs: "ext4", sizeBytes: 16 * 2 ** 20 });
    return { kind: "copy", path, remove: unmount };
  },
});
