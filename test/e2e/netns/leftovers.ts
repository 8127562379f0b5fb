// What ended jobs may have left behind on any agent: asked of the journals, the disks and the network.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type GatedAgent, lanePort } from "./gated-agent.ts";
import type { Sites } from "./sites.ts";

/** Each query finds what should not be there once all jobs have ended. */
const queries = {
  "unfinished job": "SELECT name || ' ' || state AS what FROM jobs WHERE finishedAt IS NULL",
  "a job's hold": "SELECT holder || ' on ' || pointId AS what FROM holds WHERE reason = 'job'",
  "frozen copy": "SELECT name AS what FROM migrated WHERE frozenSince IS NOT NULL",
  "live term": "SELECT name || ' epoch ' || epoch AS what FROM migrated WHERE isTermLive = 1",
  "live term of a group": "SELECT name || ' epoch ' || epoch AS what FROM groups WHERE isTermLive = 1",
  vote: "SELECT owner || ' for ' || groupPoint AS what FROM votes",
  staging: "SELECT owner || ' for ' || toId AS what FROM staging",
  "plan page": "SELECT owner AS what FROM planPages",
  "stored unit": "SELECT DISTINCT owner AS what FROM storedUnits",
  "point that is not sealed": "SELECT pointId || ' ' || state AS what FROM points WHERE state <> 'sealed'",
  "snapshot that does not count": "SELECT pointId AS what FROM points WHERE isValid = 0",
  "waiting clone": "SELECT name AS what FROM clones WHERE state <> 'Ready'",
} as const;

/** In words, with the agent each was found at; none when everything is as it should be. */
export async function leftovers({ agents }: Sites): Promise<string[]> {
  const found = await Promise.all(
    agents.map(async (agent) => {
      const left = [...(await leftRows(agent)), ...(await leftFiles(agent)), ...(await openLanes(agent))];
      return left.map((what) => `${agent.name}: ${what}`);
    }),
  );
  return found.flat();
}

async function leftRows(agent: GatedAgent): Promise<string[]> {
  const left: string[] = [];
  for (const [kind, sql] of Object.entries(queries)) {
    for (const { what } of await agent.rows<{ what: string }>(sql)) left.push(`${kind}: ${what}`);
  }
  return left;
}

/** Files that no row knows, and rows whose file is not there. */
async function leftFiles(agent: GatedAgent): Promise<string[]> {
  const live = await agent.rows<{ uid: string }>("SELECT uid FROM volumes");
  const points = await agent.rows<{ owner: string; file: string }>("SELECT DISTINCT owner, file FROM points");
  const known = new Set([
    ...live.map(({ uid }) => `${uid}/live.img`),
    ...points.map(({ owner, file }) => `${owner}/points/${file}.img`),
  ]);
  const there = new Set(await filesIn(join(agent.dataDir, "volumes")));
  const strange = await filesIn(join(agent.dataDir, "quarantine"));
  return [
    ...[...there].filter((file) => !known.has(file)).map((file) => `file that no row knows: ${file}`),
    ...[...known].filter((file) => !there.has(file)).map((file) => `missing file: ${file}`),
    ...strange.map((file) => `quarantined file: ${file}`),
  ];
}

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(folder.length + 1));
}

/** Connections for the data of jobs, at the receiving end. */
async function openLanes({ pid }: GatedAgent): Promise<string[]> {
  const port = lanePort.toString(16).toUpperCase().padStart(4, "0");
  const established = "01";
  const lines = (await readFile(`/proc/${pid}/net/tcp`, "utf8")).split("\n").slice(1);
  return lines.flatMap((line) => {
    const [, local = "", remote, state] = line.trim().split(/\s+/);
    return local.endsWith(`:${port}`) && state === established ? [`open lane: from ${remote}`] : [];
  });
}
