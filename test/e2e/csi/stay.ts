// `make clusters`: the two clusters of the scenarios, to try things in by hand, until Ctrl-C. With `--bare` nothing is installed in
// them, as an installation finds them.
import { parseArgs } from "node:util";
import { temporaryFolder } from "../../fakes/temporary-folder.ts";
import { onInterrupt } from "../../interrupt.ts";
import { type Closers, type Clusters, closeAll, openClusters, openWorld } from "./world.ts";

const { values } = parseArgs({ options: { bare: { type: "boolean", default: false } } });
// It always makes clusters of its own, also where somebody has told `make e2e-kind` of others.
for (const name of ["SOURCE_KUBECONFIG", "TARGET_KUBECONFIG"]) delete process.env[name];
const closers: Closers = [];
// Everything undoes itself then (test/interrupt.ts).
onInterrupt(() => console.error("taking everything down"));

/** Takes a minute or two; images that are not there yet some more. */
async function open(): Promise<Clusters> {
  if (values.bare) {
    const folder = await temporaryFolder("clusters");
    closers.push(() => folder.remove());
    return openClusters(folder.path, closers);
  }
  const world = await openWorld();
  closers.push(() => world.close());
  return world;
}

try {
  console.error(`starting two clusters${values.bare ? "" : ", with Longshore in them"}: about two minutes`);
  const { source, target } = await open();
  console.log(`export SOURCE_KUBECONFIG=${source.kubeconfig}\nexport TARGET_KUBECONFIG=${target.kubeconfig}`);
  console.error("they stay until Ctrl-C");
  setInterval(() => undefined, 60_000);
} catch (error) {
  await closeAll(closers);
  throw error;
}
