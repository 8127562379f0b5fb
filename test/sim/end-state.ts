// What a world must come to once nothing goes wrong any more (I6): every last snapshot has arrived, every job has ended, and no
// hold, staging image, vote, frozen mark, term or clone request is left over.
import type { Host } from "./host.ts";
import { isLastSnapshot, type Kubernetes } from "./sim-operator.ts";
import { liveImage } from "./users.ts";
import type { World } from "./world.ts";

/** The first thing that has not arrived or ended yet. */
export function behind(world: World, clusters: readonly Kubernetes[]): string | undefined {
  for (const { volumes, groups, locations: all } of clusters) {
    for (const volume of volumes) {
      const locations = all.filter((location) => volume.locations.includes(location.name));
      const { name, host } = volume;
      const together = groups.find((group) => group.volumes.includes(volume))?.volumes ?? [volume];
      // An image that went with an older image of the disk: there is nothing to bring over, nor of those of its group.
      if (together.some((one) => one.host.wasRestored && liveImage(one) === undefined)) continue;
      const last = host.journal.read
        .all<{ owner: string; pointId: string; name: string | null }>(
          "SELECT owner, pointId, points.name FROM points JOIN volumes ON uid = owner WHERE volumes.name = ? AND points.state = 'sealed' ORDER BY position",
          name,
        )
        .findLast((row) => isLastSnapshot(row.name));
      if (last === undefined) return `volume ${name} has no last snapshot`;
      for (const location of locations) {
        const isThere = world.invariants.commits.has(`${location.uid} ${last.owner} ${last.pointId}`);
        if (!isThere) return `${last.name} of volume ${name} has not arrived at ${location.name}`;
      }
    }
  }
  for (const host of world.allHosts) {
    if (!host.isUp) return `${host.name} is down`;
    const job = host.journal.read.get<{ name: string; state: string }>(
      "SELECT name, state FROM jobs WHERE finishedAt IS NULL",
    );
    if (job !== undefined) return `job ${job.name} is ${job.state}`;
  }
  return undefined;
}

/** What nobody may find when all is over, as queries that must find nothing. */
const leftoverQueries: Readonly<Record<string, string>> = {
  "a job that has not ended": "SELECT name AS what FROM jobs WHERE finishedAt IS NULL",
  "the hold of a job": "SELECT holder AS what FROM holds WHERE reason = 'job'",
  "the hold of a clone": "SELECT holder AS what FROM holds WHERE reason = 'clone'",
  "the hold of a user": "SELECT holder AS what FROM holds WHERE reason = 'user'",
  "a base hold of no base": `SELECT holder || ' ' || pointId AS what FROM holds WHERE reason = 'base' AND NOT EXISTS
    (SELECT 1 FROM bases WHERE bases.owner = holds.owner AND bases.pointId = holds.pointId AND location = holder)
    AND holder NOT LIKE 'lineage/%'`,
  "a frozen volume": "SELECT name AS what FROM migrated WHERE frozenSince IS NOT NULL",
  "a term": "SELECT name AS what FROM migrated WHERE isTermLive = 1",
  "the term of a group": "SELECT name AS what FROM groups WHERE isTermLive = 1",
  "a vote": "SELECT owner || ' ' || groupPoint AS what FROM votes",
  "a staging image": "SELECT owner || ' ' || toId AS what FROM staging",
  "stored units of no staging": "SELECT owner AS what FROM storedUnits WHERE owner NOT IN (SELECT owner FROM staging)",
  "a request for a clone": "SELECT name || ' ' || state AS what FROM clones WHERE state <> 'Ready'",
  "a volume half made or half gone": "SELECT name || ' ' || state AS what FROM volumes WHERE state <> 'ready'",
  "a point half made or half gone":
    "SELECT pointId || ' ' || state AS what FROM points WHERE state IN ('creating','deleting')",
  "a copy half gone": "SELECT name AS what FROM migrated WHERE deleting = 1",
};

export function leftovers(world: World): string[] {
  return world.allHosts
    .flatMap((host) => [
      ...Object.entries(leftoverQueries).flatMap(([what, sql]) => {
        const row = host.journal.read.get<{ what: string }>(sql);
        return row === undefined ? [] : [`${host.name} is left with ${what}: ${row.what}`];
      }),
      ...lineageHolds(host),
      ...strayFiles(host),
    ])
    .concat(halfDecided(world), disagreements(world));
}

/** The point that a clone was made of is held until the clone has arrived where its original is; one without image never does. */
function lineageHolds(host: Host): string[] {
  const sql = `SELECT holder, pointId, volumes.uid FROM holds LEFT JOIN volumes ON holder = 'lineage/' || volumes.name
    WHERE reason = 'base' AND holder LIKE 'lineage/%'`;
  const isAlive = (uid: string | null) =>
    uid === null || host.disk.image({ volume: uid, point: undefined }) !== undefined;
  return host.journal.read
    .all<{ holder: string; pointId: string; uid: string | null }>(sql)
    .filter(({ uid }) => !host.wasRestored || isAlive(uid))
    .map(({ holder, pointId }) => `${host.name} is left with a base hold of no base: ${holder} ${pointId}`);
}

/** Group points that some of their members got and others did not. A node put back may have forgotten what it had decided. */
function halfDecided(world: World): string[] {
  const { decisions, commits } = world.invariants;
  return [...decisions].flatMap(([key, members]) => {
    const [clusterUid = "", groupPoint] = key.split(" ");
    if (world.clusterOf(clusterUid)?.hosts.some(({ wasRestored }) => wasRestored)) return [];
    const missing = members.filter(({ volume, toId }) => !commits.has(`${clusterUid} ${volume} ${toId}`));
    return missing.map(
      ({ volume }) => `group point ${groupPoint} was decided, and volume ${volume} never got its part`,
    );
  });
}

/** All agents of a cluster know of the same members. */
function disagreements(world: World): string[] {
  return world.clusters.flatMap(({ name, hosts }) => {
    const told = hosts.map(({ agentId, journal }) => {
      const others = journal.read.all<{ agentId: string; state: string }>("SELECT agentId, state FROM members");
      const self = { agentId: agentId ?? "", state: "member" };
      const all = [...others.filter((other) => other.agentId !== agentId), self];
      return all
        .map((one) => `${one.agentId} ${one.state}`)
        .sort()
        .join(", ");
    });
    return new Set(told).size < 2 ? [] : [`the agents of ${name} do not agree on their members: ${told.join(" | ")}`];
  });
}

function strayFiles(host: Host): string[] {
  const { read } = host.journal;
  const live = new Set(read.all<{ uid: string }>("SELECT uid FROM volumes").map(({ uid }) => uid));
  const points = new Set(
    read
      .all<{ owner: string; file: string }>("SELECT owner, file FROM points")
      .map(({ owner, file }) => `${owner} ${file}`),
  );
  return host.disk
    .places()
    .filter(({ volume, point }) => (point === undefined ? !live.has(volume) : !points.has(`${volume} ${point}`)))
    .map(({ volume, point }) => `${host.name} is left with a file no row knows: ${volume} ${point ?? "live"}`);
}
