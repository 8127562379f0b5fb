// Loaded before the simulator when it is to run a mutant: changes the text of the engine's files as they are loaded. A text that is
// not found exactly once is an error, so that no canary stops singing unnoticed.
import { registerHooks } from "node:module";
import { canaries } from "./canaries.ts";

const canary = canaries.find(({ name }) => name === process.env.CANARY);
if (canary === undefined) throw new Error(`there is no canary ${process.env.CANARY}`);
const left = new Set(canary.edits);

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    const edits = canary.edits.filter(({ file }) => url.endsWith(`/src/${file}`));
    if (edits.length === 0) return loaded;
    let source = String(loaded.source);
    for (const edit of edits) {
      if (source.split(edit.search).length !== 2)
        throw new Error(`canary ${canary.name}: ${edit.file} does not have it once: ${edit.search}`);
      source = source.replace(edit.search, () => edit.replacement);
      left.delete(edit);
    }
    return { ...loaded, source };
  },
});

process.on("exit", () => {
  if (left.size === 0) return;
  console.error(`canary ${canary.name}: ${[...left].map(({ file }) => file)} was never loaded`);
  process.exitCode = 1;
});
