// A small disk in memory, for one agent: its fsyncs cost nothing, it can be filled up, and nobody else's space is used.
import { execFile, spawnSync } from "node:child_process";
import { promisify } from "node:util";
import { onInterrupt } from "../../interrupt.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

export interface MemoryDisk {
  /** A second call does nothing. */
  unmount(): Promise<void>;
}

/** Mounts it at a folder that is there. It goes away, with what is in it, when the tests are interrupted. */
export async function mountMemory(path: string, sizeBytes: number): Promise<MemoryDisk> {
  let isMounted = true;
  const unmountNow = () => {
    isMounted = false;
    spawnSync("umount", ["--lazy", "--quiet", path], { env });
  };
  const forget = onInterrupt(unmountNow);
  try {
    await run("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes},mode=700`, "longshore-test", path], { env });
  } catch (error) {
    unmountNow();
    forget();
    throw error;
  }
  return {
    async unmount() {
      if (!isMounted) return;
      isMounted = false;
      await run("umount", [path], { env });
      forget();
    },
  };
}
