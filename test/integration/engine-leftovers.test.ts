// What could not be finished when it was asked for is finished later, without a restart.
import { afterEach, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type Clusters, openClusters } from "../fakes/engines.ts";
import { FakeClock } from "../fakes/fake-clock.ts";

const sizeBytes = 2 ** 20;
let clusters: Clusters | undefined;
afterEach(() => clusters?.close());

test.each([
  // what the disk refuses, and what was asked for
  ["remove", "a volume that could not be deleted"],
  ["deletePoint", "a snapshot that could not be deleted with its volume"],
])("when the disk refuses to %s, %s goes once the disk is well again", async (step) => {
  const clock = new FakeClock();
  clusters = await openClusters(["here"], { clock });
  const [here] = clusters.all;
  if (here === undefined) throw new Error("no cluster");
  await here.engine.api.putVolume("vol", { sizeBytes });
  await here.engine.api.putSnapshot("vol", "snap");
  here.onStorage = (name, when) => {
    if (name === step && when === "before") throw new LongshoreError("DiskFull", "no room for it");
  };
  await expect(here.engine.api.removeVolume("vol")).rejects.toThrow("no room");
  here.onStorage = () => undefined;
  await expect(here.engine.api.putVolume("vol", { sizeBytes })).rejects.toThrow("being deleted");
  const made = Promise.withResolvers<void>();
  here.onStorage = (name, when) => {
    if (name === "remove" && when === "after") made.resolve();
  };
  await clock.advance(11_000);
  await made.promise;
  await here.engine.api.putVolume("vol", { sizeBytes });
  expect((await here.storage.list()).map(({ kind }) => kind)).toEqual(["live"]);
});
