// Our source as JavaScript, for images. Of TypeScript, Node.js loads the program that takes the types out into each process and each
// thread, at every start, for a pod keeps nothing of what was compiled. What V8 compiles is no good in an image: it differs from one
// run to the next, and Node.js looks for it under a name that processors with other instructions do not share.
import { readdir, readFile, rename, writeFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";

/** Every word stays at its line and column, so that what a stack trace names is found in the source. */
export function javaScriptOf(source: string): string {
  return stripTypeScriptTypes(source).replaceAll('.ts"', '.js"');
}

/** Turns each module below a folder into one of JavaScript in its place, `x.ts` into `x.js`; its mode stays. */
export async function turnIntoJavaScript(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith(".ts")) continue;
    const path = join(entry.parentPath, entry.name);
    await writeFile(path, javaScriptOf(await readFile(path, "utf8")));
    await rename(path, path.replace(/\.ts$/, ".js"));
  }
}

if (import.meta.main) {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) throw new Error("usage: javascript.ts FOLDER");
  await turnIntoJavaScript(folder);
}
