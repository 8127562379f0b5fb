import { expect, test } from "@jest/globals";
import { parseMountInfo } from "./mounts.ts";

test.each([
  // a line of /proc/self/mountinfo, and what it says
  [
    "42 27 7:0 / /mnt/data rw,relatime - xfs /dev/loop0 rw,inode64",
    { id: 42, device: "7:0", path: "/mnt/data", source: "/dev/loop0" },
  ],
  [
    "43 27 0:51 /sub /mnt/b rw shared:7 master:2 - btrfs /dev/loop1 rw,subvol=/sub",
    { id: 43, device: "0:51", path: "/mnt/b", source: "/dev/loop1" },
  ],
  [
    "44 27 7:2 / /mnt/with\\040space\\011and\\134more rw - ext4 /dev/disk/by-label/a\\040b rw",
    { id: 44, device: "7:2", path: "/mnt/with space\tand\\more", source: "/dev/disk/by-label/a b" },
  ],
  ["45 27 0:5 / /dev rw - devtmpfs none rw", { id: 45, device: "0:5", path: "/dev", source: "none" }],
])("%s", (line, mount) => {
  expect(parseMountInfo(`${line}\n`)).toEqual([mount]);
});
