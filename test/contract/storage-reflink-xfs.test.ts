import { mountLoop } from "../fakes/loop-fs.ts";
import { needs } from "../needs.ts";
import { freezeContract } from "./freeze.ts";
import { diskFullContract, storageContract } from "./storage.ts";

async function open(sizeBytes: number) {
  const { path, unmount } = await mountLoop({ fs: "xfs", sizeBytes });
  return { kind: "reflink" as const, path, remove: unmount };
}

storageContract("reflink, on xfs", { it: needs("root", "xfs"), open: () => open(512 * 2 ** 20) });

freezeContract("reflink, on xfs", { it: needs("root", "xfs"), open: () => open(1024 * 2 ** 20) });

diskFullContract("reflink, on a small xfs", { it: needs("root", "xfs"), open: () => open(300 * 2 ** 20) });
