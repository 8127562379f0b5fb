// A folder of a test's own, which goes when the test is done with it and when the run is interrupted.
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onInterrupt } from "../interrupt.ts";

export interface TemporaryFolder {
  readonly path: string;
  remove(): Promise<void>;
}

/** `purpose` is a part of the name, for whoever finds it. */
export async function temporaryFolder(purpose: string): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), `longshore-${purpose}-`));
  const forget = onInterrupt(() => rmSync(path, { recursive: true, force: true }));
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true });
      forget();
    },
  };
}
