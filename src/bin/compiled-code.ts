// Keeps compiled code on the disk, so that threads start in about half the time. Node.js checks what it finds there against the
// source: https://nodejs.org/api/module.html#module-compile-cache
import { enableCompileCache } from "node:module";

/**
 * From now on this process keeps compiled code in the folder, as do threads and Node.js processes it starts. Whoever can write there can
 * run code in this process. Nothing changes where that fails; the answer is why, then.
 */
export function keepCompiledCode(folder: string): string | undefined {
  const { directory, message = "it is disabled" } = enableCompileCache(folder);
  if (directory === undefined) return message;
  process.env.NODE_COMPILE_CACHE = folder;
  return undefined;
}
