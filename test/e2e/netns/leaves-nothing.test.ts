// What the tests in network namespaces need of the machine goes away again: after a regular end, and when they are interrupted.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect } from "@jest/globals";
import { needs } from "../../needs.ts";
import { processesNaming } from "../../processes.ts";
import { eventually } from "../process.ts";
import { openSites } from "./sites.ts";

const testMsMax = 600_000;

/** Of two agents: four namespaces, a link, two disks, two processes. */
const allTraces = 4 + 1 + 2 + 2;

interface Facts {
  readonly network: string;
  readonly link: string;
  readonly folder: string;
}

/** All that there is on this machine of the network and of the folder. */
function traces({ network, link, folder }: Facts): string[] {
  const namespaces = readdirSync("/run/netns").filter((name) => name.startsWith(network));
  const mounts = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .filter((line) => line.includes(folder));
  const links = readdirSync("/sys/class/net").filter((name) => name === link);
  return [...namespaces, ...links, ...mounts, ...processesNaming(folder)];
}

needs("netns")(
  "after the end no process, mount, namespace or link is left",
  async () => {
    const sites = await openSites({ agentsPerSite: 1 });
    const { network, folder } = sites;
    const facts = { network: network.name, link: network.link, folder };
    const before = traces(facts);
    await sites.close();
    expect(before).toHaveLength(allTraces);
    expect(traces(facts)).toEqual([]);
  },
  testMsMax,
);

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  needs("netns")(
    `${signal} in the middle leaves no process, mount, namespace or link`,
    async () => {
      const source = `import { openSites } from ${JSON.stringify(join(import.meta.dirname, "sites.ts"))};
        const sites = await openSites({ agentsPerSite: 1 });
        const { name: network, link } = sites.network;
        console.log(JSON.stringify({ network, link, folder: sites.folder }));
        setInterval(() => undefined, 1000);`;
      const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const facts: Facts = JSON.parse(await firstLine(child));
      const before = traces(facts);
      child.kill(signal);
      await once(child, "exit");
      expect(before).toHaveLength(allTraces);
      // What was killed takes a moment to be gone.
      await eventually("the last trace going away", async () => (traces(facts).length === 0 ? true : undefined));
    },
    testMsMax,
  );
}

async function firstLine({ stdout }: ChildProcess): Promise<string> {
  if (stdout === null) throw new Error("its output was not asked for");
  for await (const line of createInterface(stdout)) return line;
  throw new Error("it ended without a word");
}
