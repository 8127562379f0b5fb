// Two clusters that are each other's location, and the failover of a volume from the one to the other.
import { readFile } from "node:fs/promises";
import { type Cluster, pair } from "./engines.ts";
import { changeVolume, makeVolume, migrate, openWorld, requireCopy, type World } from "./migration-world.ts";

/** With the volume `data`, which has arrived twice. */
export async function bothWays(options: Parameters<typeof openWorld>[0] = {}): Promise<World> {
  const world = await openWorld(options);
  await pair(world.target, world.source);
  await makeVolume(world, "data");
  await migrate(world, "data", "s1");
  await changeVolume(world, "data");
  await migrate(world, "data", "s2");
  return world;
}

/** The same clusters with the other one as the source. */
export function reversed(world: World): World {
  return { ...world, source: world.target, target: world.source };
}

/** Makes a clone of the newest point where the copy of `data` is, as a volume that is to be migrated back. */
export async function failOver(world: World, name: string): Promise<void> {
  const { api } = world.target.engine;
  const copy = await requireCopy(world, "data");
  const clone = await api.putClone(name, { migratedVolume: copy.name, point: "latest" });
  if (clone.state !== "Ready") throw new Error(`the clone ${name} is ${clone.state}`);
  await api.putVolume(name, { sizeBytes: clone.sizeBytes ?? 0, migrationEnabled: true });
}

/** What a volume holds at this moment. */
export async function contentOf({ engine }: Cluster, volume: string): Promise<Buffer> {
  return readFile((await engine.api.getVolume(volume)).path);
}
