import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { mountHolding, parseMountTable, topmostAt } from "./mount-table.ts";

test.each([
  // a line of /proc/self/mountinfo, and what it says
  [
    "42 27 7:0 / /mnt/data rw,relatime - xfs /dev/loop0 rw,inode64",
    [42, "7:0", "/", "/mnt/data", "xfs", "/dev/loop0", "writable", "private"],
  ],
  [
    "43 27 0:51 /sub /mnt/b rw shared:7 master:2 - btrfs /dev/loop1 rw,subvol=/sub",
    [43, "0:51", "/sub", "/mnt/b", "btrfs", "/dev/loop1", "writable", "shared"],
  ],
  [
    "44 27 7:2 / /mnt/with\\040space\\011and\\134more ro master:3 - ext4 /dev/disk/by-label/a\\040b rw",
    [44, "7:2", "/", "/mnt/with space\tand\\more", "ext4", "/dev/disk/by-label/a b", "read-only", "private"],
  ],
  [
    "45 27 7:3 / /mnt/c rw,relatime - xfs /dev/loop3 ro,norecovery",
    [45, "7:3", "/", "/mnt/c", "xfs", "/dev/loop3", "read-only", "private"],
  ],
  [
    "46 27 0:6 /loop4 /mnt/device rw - devtmpfs udev rw",
    [46, "0:6", "/loop4", "/mnt/device", "devtmpfs", "udev", "writable", "private"],
  ],
  [
    "47 27 7:5 / /mnt/d rw,errors=remount-ro - ext4 /dev/loop5 rw,errors=remount-ro",
    [47, "7:5", "/", "/mnt/d", "ext4", "/dev/loop5", "writable", "private"],
  ],
])("%s", (line, expected) => {
  const found = parseMountTable(`${line}\n`).map(({ id, device, root, path, type, source, isReadOnly, isShared }) => {
    const words = [isReadOnly ? "read-only" : "writable", isShared ? "shared" : "private"];
    return [id, device, root, path, type, source, ...words];
  });
  expect(found).toEqual([expected]);
});

const table = parseMountTable(
  [
    "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw",
    "2 1 8:2 / /var/lib rw - ext4 /dev/sda2 rw",
    "3 2 7:0 / /var/lib/kubelet/a rw - xfs /dev/loop0 rw",
    "4 3 7:1 / /var/lib/kubelet/a rw - xfs /dev/loop1 rw",
  ].join("\n"),
);

test.each([
  ["/var/lib/kubelet/a", "/dev/loop1"],
  ["/var/lib/kubelet", undefined],
  ["/var/lib/kubelet/a/b", undefined],
])("of the mounts at %s the last one is seen: %s", (path, source) => {
  expect(topmostAt(table, path)?.source).toBe(source);
});

test.each([
  ["/var/lib/kubelet", "/dev/sda2"],
  ["/var/lib/kubelet/a/b", "/dev/loop1"],
  ["/var/library", "/dev/sda1"],
  ["/var/lib", "/dev/sda2"],
  ["/", "/dev/sda1"],
])("%s lies in the mount of %s", (path, source) => {
  expect(mountHolding(table, path)?.source).toBe(source);
});

test("a path is read as the kernel wrote it, whatever is in it", () => {
  const escaped = (path: string) =>
    path.replace(/[ \t\n\\]/g, (sign) => `\\${sign.charCodeAt(0).toString(8).padStart(3, "0")}`);
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), (name) => {
      const [entry] = parseMountTable(`1 0 7:0 / /${escaped(name)} rw - xfs /dev/loop0 rw\n`);
      expect(entry?.path).toBe(`/${name}`);
    }),
  );
});
