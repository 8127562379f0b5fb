import { mountLoop } from "../fakes/loop-fs.ts";
import { needs } from "../needs.ts";
import { freezeContract } from "./freeze.ts";
import { diskFullContract, storageContract } from "./storage.ts";

async function open(sizeBytes: number) {
  const { path, unmount } = await mountLoop({ fs: "btrfs", sizeBytes });
  return { kind: "reflink" as const, path, remove: unmount };
}

storageContract("reflink, on btrfs", { it: needs("root", "btrfs"), open: () => open(512 * 2 ** 20) });

freezeContract("reflink, on btrfs", { it: needs("root", "btrfs"), open: () => open(1024 * 2 ** 20) });

diskFullContract("reflink, on a small btrfs", { it: needs("root", "btrfs"), open: () => open(110 * 2 ** 20) });
