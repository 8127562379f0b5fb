// A request about a group snapshot that comes twice, at once: what the first makes is what counts.
import { afterEach, expect, test } from "@jest/globals";
import { type Clusters, openClusters } from "../fakes/engines.ts";

let clusters: Clusters | undefined;
afterEach(() => clusters?.close());

test("a frozen group that is asked twice at once for its snapshots has them taken once, before it is thawed", async () => {
  clusters = await openClusters(["here"]);
  const [here] = clusters.all;
  if (here === undefined) throw new Error("no cluster");
  const { api, member } = here.engine;
  await api.putVolume("vol", { sizeBytes: 2 ** 20 });
  const part = { group: "g", groupPoint: "ab".repeat(16), name: "snap" };
  await member.freeze({ group: "g", groupPoint: part.groupPoint, volumes: ["vol"], timeoutMs: 10_000 });
  const steps: string[] = [];
  here.onStorage = (step, when) => {
    if (when === "before" && (step === "snapshot" || step === "deletePoint")) steps.push(step);
  };
  await Promise.all([member.snapshotFrozen(part), member.snapshotFrozen(part)]);
  expect(steps).toEqual(["snapshot"]);
  await expect(member.thaw(part)).resolves.toMatchObject({ wasFrozen: true });
  await expect(member.snapshotFrozen(part)).rejects.toThrow("frozen");
  const { snapshots } = await member.confirmGroup(part);
  expect(snapshots).toMatchObject([{ name: "snap", state: "sealed" }]);
});
