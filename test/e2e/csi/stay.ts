// `make clusters`: the two clusters of the scenarios, to try things in by hand, until Ctrl-C. With `--bare` nothing is installed in
// them, as an installation finds them.
import { parseArgs } from "node:util";
import { temporaryFolder } from "../../fakes/temporary-folder.ts";
import { type Closers, type Clusters, closeAll, openClusters, openWorld } from "./world.ts";

const { values } = parseArgs({ options: { bare: { type: "boolean", default: false } } });
const closers: Closers = [];
const interrupted = Promise.withResolvers<void>();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => interrupted.resolve());

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
  await interrupted.promise;
} finally {
  console.error("taking everything down");
  await closeAll(closers);
}
