// Makes container images without a registry and without a daemon: `node tools/image.ts` ours, as the Dockerfile describes it, into
// .cache/image/longshore.tar; `--all` also those that the tests run beside it. What has not changed is not made again.
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { buildImages, placesIn } from "./image/build.ts";
import { imagesOf } from "./image/catalogue.ts";

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { all: { type: "boolean", default: false } } });
  const places = placesIn(join(import.meta.dirname, ".."));
  let sinceMs = performance.now();
  await buildImages(imagesOf(values.all ? "all" : "longshore"), places, ({ reference, file, made }) => {
    const took = `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;
    console.log(`${reference}: ${made ? `made in ${took}` : "unchanged"}, ${file}`);
    sinceMs = performance.now();
  });
  console.log("load them with: ctr --namespace k8s.io images import FILE, or docker load --input FILE");
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(`image: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}
