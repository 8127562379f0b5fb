// Runs every generator, tools/generate-*.ts. A generator writes its files when it is run without arguments, and with
// `--check` says which of them are out of date and fails. `node tools/generate.ts [--verify]`.

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** The generators, in a fixed order. */
export function generators(): string[] {
  return readdirSync(import.meta.dirname)
    .filter((file) => /^generate-.*\.ts$/.test(file) && !file.endsWith(".test.ts"))
    .sort();
}

if (import.meta.main) {
  const options = process.argv.includes("--verify") ? ["--check"] : [];
  for (const file of generators()) {
    const { status } = spawnSync(process.execPath, [join(import.meta.dirname, file), ...options], { stdio: "inherit" });
    if (status !== 0) process.exitCode = 1;
  }
}
