// Claims that wait for a frozen volume: many of them at once, one that is given up, and some of a volume that is hardly ever open.
import { expect } from "@jest/globals";
import type { Seen } from "../kube-client.ts";
import { eventually } from "../process.ts";
import { apply, eventsAbout, get, inPod, list, longshore, patch, podIsReady, remove } from "./kube.ts";
import { copyOf, handleOf, jobSucceeds, migrate, publishedAs, startMigration, volumeOf } from "./migration.ts";
import { claim, pod } from "./objects.ts";
import { boundTimes, until } from "./watching.ts";
import type { World } from "./world.ts";

const namespace = "tide";
const tide = { namespace, name: "tide" } as const;
const pump = { kind: "pod", namespace, name: "pump" } as const;
const location = "slow";

/** For so long the volume is frozen at least while claims wait for it. */
const frozenSeconds = Number(process.env.LONGSHORE_FROZEN_SECONDS ?? 30);
const mebibytesPerSecond = 1;
/** At the first of four quarters everybody has waited for as long as that. */
const changedMebibytes = 4 * frozenSeconds * mebibytesPerSecond;
const size = `${changedMebibytes + 16}Mi`;

/** How long all of them together may take, however slow the machine is. */
export const tideMsMax = 900_000 + 2 * 1_000 * frozenSeconds;

/** A raw block volume that has arrived once and is published. A repeat changes nothing. */
async function tideHasArrived({ source, target }: World): Promise<void> {
  const wish = { ...tide, storageClass: "on-demand-slow", size, volumeMode: "Block" } as const;
  await apply(source, claim(wish), pod({ namespace, name: pump.name, script: "sleep 86400", devices: [tide.name] }));
  await podIsReady(source, namespace, pump.name);
  const isPublished = (await list(target, "volumesnapshots", namespace)).length > 0;
  if (isPublished) return;
  await inPod(source, pump, change(4));
  await migrate(source, tide, location);
  await publishedAs(target, tide);
}

/** Changes so many mebibytes at the beginning of the device. */
const change = (mebibytes: number) =>
  `dd if=/dev/urandom of=/dev/${tide.name} bs=1M count=${mebibytes} conv=notrunc,fsync status=none`;

/** Resolves when the operator has told the agents. No limit: as fast as it goes. */
async function limitBandwidth({ source }: World, limit: string | undefined): Promise<void> {
  const kind = "migrationlocations";
  await patch(source, { kind, name: location }, { spec: { bandwidth: limit === undefined ? null : { limit } } });
  const { metadata } = await get(source, { kind, name: location });
  const isTold = ({ status }: Seen) => (status?.observedGeneration ?? 0) >= (metadata.generation ?? 0);
  await until(source, { kind, name: location }, "being told", isTold);
}

const isFrozen = ({ status }: Seen) => status?.state === "Frozen";
const ships = Array.from({ length: 20 }, (_, index) => `ship-${index + 1}`);
const clone = (name: string) =>
  claim({ namespace, name, storageClass: "clones", size, volumeMode: "Block", from: tide.name });

export async function manyWaitForTheThaw(world: World): Promise<void> {
  const { source, target, figures } = world;
  await tideHasArrived(world);
  // Whoever waits has to be told before it is over, however long that takes.
  await limitBandwidth(world, `${256 * mebibytesPerSecond}Ki`);
  await inPod(source, pump, change(changedMebibytes));
  const job = await startMigration(source, tide, location);
  await copyOf(target, tide, "being frozen", isFrozen);
  const whenBound = boundTimes(target, namespace, ships, tideMsMax);
  // It is awaited below; should anything fail before, that is what is told.
  void whenBound.catch(() => undefined);
  const [wreck] = await Promise.all([giveUpOne(world), whenAllAreTold(world)]);
  await limitBandwidth(world, `${mebibytesPerSecond}Mi`);
  await untilDescribed(world);
  const claims = await list(target, "pvc", namespace);
  // It is frozen still, and nobody got what is not complete.
  expect(isFrozen(await copyOf(target, tide, "being there"))).toBe(true);
  expect(claims.map(({ status }) => status?.phase)).toEqual(ships.map(() => "Pending"));

  await limitBandwidth(world, undefined);
  await jobSucceeds(source, job);
  const bound = await whenBound;
  const committed = (await copyOf(target, tide, "being there")).status.newestPoint.committedTime as string;
  const seconds = [...bound.values()].map((atMs) => (atMs - Date.parse(committed)) / 1_000);
  figures.durations(`claims bound after the commit that ended a freeze of ${frozenSeconds} s or more`, seconds);
  await holdsTheSame(world);
  await leavesNoClone(world, wreck);
  await remove(target, "pvc", namespace, ships);
}

/** One more claim waits as well, and is deleted meanwhile; gives what its volume would be called. */
async function giveUpOne({ target }: World): Promise<string> {
  await apply(target, ...ships.map(clone), clone("wreck"));
  const about = { kind: "PersistentVolumeClaim", namespace, name: "wreck" };
  const isTold = async () => (await eventsAbout(target, about)).some(isWaiting) || undefined;
  await eventually("the claim that is given up waiting", isTold, { timeoutMs: 200_000, intervalMs: 500 });
  const handle = handleOf(await get(target, { kind: "pvc", namespace, name: "wreck" }));
  await remove(target, "pvc", namespace, ["wreck"]);
  return handle;
}

const isWaiting = ({ reason }: { readonly reason: string }) => reason === "WaitingForThaw";

async function whenAllAreTold({ target }: World): Promise<void> {
  const areTold = async () => {
    const events = (await list(target, "events", namespace)) as unknown as {
      reason: string;
      involvedObject: { name: string };
    }[];
    const told = new Set(events.filter(isWaiting).map(({ involvedObject }) => involvedObject.name));
    return ships.every((ship) => told.has(ship)) || undefined;
  };
  await eventually("every claim being told that it waits", areTold, { timeoutMs: 200_000, intervalMs: 1_000 });
}

/** What a tenant sees who looks: how far the transfer is. */
async function untilDescribed({ target }: World): Promise<void> {
  const timeoutMs = 120_000 + 2 * 1_000 * frozenSeconds;
  const isDescribed = async () => {
    const { stdout } = await target.kubectl(["describe", "pvc", "ship-1", "--namespace", namespace]);
    return /WaitingForThaw\b.*\b(?:2[5-9]|[3-9]\d)%/.test(stdout) || undefined;
  };
  await eventually("a quarter being told of in kubectl describe", isDescribed, { timeoutMs, intervalMs: 1_000 });
}

/** A clone is, byte for byte, what the device was when the snapshot was taken. */
async function holdsTheSame({ source, target }: World): Promise<void> {
  const reader = { kind: "pod", namespace, name: "reader" };
  await apply(target, pod({ namespace, name: reader.name, script: "sleep 86400", devices: ["ship-1"] }));
  await podIsReady(target, namespace, reader.name);
  const digest = (device: string) => `sha256sum </dev/${device}`;
  expect(await inPod(target, reader, digest("ship-1"))).toBe(await inPod(source, pump, digest(tide.name)));
  await remove(target, "pod", namespace, [reader.name]);
}

async function leavesNoClone({ target }: World, handle: string): Promise<void> {
  const isGone = async () => {
    const volumes = await longshore<{ name: string }[]>(target, "volume", "list");
    const clones = await longshore<{ name: string }[]>(target, "clone", "list");
    return ![...volumes, ...clones].some(({ name }) => name === handle) || undefined;
  };
  const often = { timeoutMs: 120_000, intervalMs: 3_000 };
  await eventually("nothing being left of a claim that was given up", isGone, often);
}

const boats = Array.from({ length: 20 }, (_, index) => `boat-${index + 1}`);

/** Has a volume follow another schedule than its class says. */
function putOn(source: World["source"], volume: string, schedule: string): Promise<void> {
  const annotations = { "longshore.dev/schedulePolicy": schedule };
  return patch(source, { kind: "pv", name: volume }, { metadata: { annotations } });
}

export async function jobsBackToBackStarveNobody(world: World): Promise<void> {
  const { source, target, figures } = world;
  await tideHasArrived(world);
  const volume = await volumeOf(source, tide);
  const busy = `while [ -e /tmp/busy ]; do ${change(2)}; sleep 0.5; done`;
  await inPod(source, pump, `touch /tmp/busy; { ${busy}; } >/dev/null 2>&1 &`);
  // As much is changed in a second as can be sent in two.
  await limitBandwidth(world, `${mebibytesPerSecond}Mi`);
  await putOn(source, volume, "back-to-back");
  const before = await copyOf(target, tide, "being frozen", isFrozen);
  const askedMs = Date.now();
  const whenBound = boundTimes(target, namespace, boats);
  void whenBound.catch(() => undefined);
  await apply(target, ...boats.map(clone));
  const bound = await whenBound;
  figures.durations(
    "claims bound after they were made, with jobs back to back",
    [...bound.values()].map((atMs) => (atMs - askedMs) / 1_000),
  );
  // It was one job after the other indeed, and they go on.
  const wanted = before.status.newestPoint.generation + 5;
  await copyOf(target, tide, "going on", ({ status }) => status?.newestPoint?.generation >= wanted);
  await putOn(source, volume, "on-demand");
  await inPod(source, pump, "rm -f /tmp/busy");
  await limitBandwidth(world, undefined);
  await remove(target, "pvc", namespace, boats);
}

/** The data of its volume are deleted at once, not when the migration is over, and no further job is made. */
export async function aClaimIsDeletedInTheMiddleOfAMigration(world: World): Promise<void> {
  const { source, target } = world;
  const ebb = { namespace, name: "ebb" } as const;
  const drain = { kind: "pod", namespace, name: "drain" } as const;
  const wish = { ...ebb, storageClass: "on-demand-slow", size: "320Mi", volumeMode: "Block" } as const;
  await apply(source, claim(wish), pod({ ...drain, script: "sleep 86400", devices: [ebb.name] }));
  await podIsReady(source, namespace, drain.name);
  const volume = await volumeOf(source, ebb);
  await inPod(source, drain, `dd if=/dev/urandom of=/dev/${ebb.name} bs=1M count=300 conv=fsync status=none`);
  await limitBandwidth(world, `${mebibytesPerSecond}Mi`);
  await putOn(source, volume, "back-to-back");
  await copyOf(target, ebb, "being frozen", isFrozen);

  const handle = handleOf(await get(source, { kind: "pvc", ...ebb }));
  await remove(source, "pod", namespace, [drain.name]);
  await remove(source, "pvc", namespace, [ebb.name]);
  await source.kubectl(["wait", "--for=delete", `pv/${volume}`, "--timeout=120s"]);
  const left = await longshore<{ name: string }[]>(source, "volume", "list");
  expect(left.map(({ name }) => name)).not.toContain(handle);
  await limitBandwidth(world, undefined);
}
