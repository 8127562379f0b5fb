// Many claims at once, and one whose class is wrong.
import { expect } from "@jest/globals";
import { apply, get, list, remove, told } from "./kube.ts";
import { claim } from "./objects.ts";
import { boundTimes } from "./watching.ts";
import type { World } from "./world.ts";

const namespace = "crowd";
const people = Array.from({ length: 100 }, (_, index) => `claim-${index + 1}`);

export async function aHundredClaimsAtOnceAreBound({ source, figures }: World): Promise<void> {
  const whenBound = boundTimes(source, namespace, people);
  void whenBound.catch(() => undefined);
  const askedMs = Date.now();
  await apply(source, ...people.map((name) => claim({ namespace, name, storageClass: "plain", size: "16Mi" })));
  const bound = await whenBound;
  const seconds = [...bound.values()].map((atMs) => (atMs - askedMs) / 1_000);
  figures.durations("claims bound, of a hundred made at once", seconds);
  const volumes = (await list(source, "pv")).filter(({ spec }) => spec.claimRef?.namespace === namespace);
  expect(new Set(volumes.map(({ spec }) => spec.csi.volumeHandle)).size).toBe(people.length);
  await remove(source, "pvc", namespace, people);
}

export async function aWrongParameterIsNamed({ source }: World): Promise<void> {
  await apply(source, claim({ namespace, name: "misled", storageClass: "misspelt", size: "16Mi" }));
  const about = { kind: "PersistentVolumeClaim", namespace, name: "misled" };
  const { message } = await told(source, about, ({ reason }) => reason === "ProvisioningFailed");
  expect(message).toMatch(/InvalidArgument/);
  expect(message).toMatch(/\bmigrationEnabel\b/);
  expect((await get(source, { kind: "pvc", namespace, name: "misled" })).status.phase).toBe("Pending");
  await remove(source, "pvc", namespace, ["misled"]);
}
