// Leads all that the agents of one site say to those of the other through a program that delays it and breaks connections.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { eventually, watch } from "../process.ts";
import type { BadPath } from "./bad-path-program.ts";
import { apiPort, lanePort } from "./gated-agent.ts";
import { inside } from "./network.ts";
import { between, type Sites } from "./sites.ts";

const root = join(import.meta.dirname, "../../..");
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const firstPort = 9_000;

/** Connections that are there stay as they are. Returns what ends it. */
export async function openBadPath(
  { network, source, target }: Sites,
  quality: Omit<BadPath, "routes">,
): Promise<() => Promise<void>> {
  const ports = target.agents.flatMap((agent) => [apiPort, lanePort].map((port) => ({ agent, port })));
  const routes = ports.map(({ agent, port }, index) => ({
    listen: firstPort + index,
    address: agent.host.address,
    port,
  }));
  const program = [join(root, "node_modules/.bin/node"), "--disable-warning=ExperimentalWarning"];
  const options = [join(import.meta.dirname, "bad-path-program.ts"), JSON.stringify({ ...quality, routes })];
  const command = [...inside(network.host(between).namespace), "setpriv", "--pdeathsig", "KILL", ...program];
  const child = spawn("nsenter", [...command, ...options], { stdio: ["ignore", "pipe", "inherit"], env });
  const process = watch(child, "bad path", "/dev/null");
  let isReady = false;
  child.stdout?.on("data", () => {
    isReady = true;
  });
  await eventually("the bad path being ready", async () => (isReady ? true : undefined));
  for (const { name } of source.agents) {
    const diversions = ports.map(({ agent, port }, index) => ({
      to: { host: agent.name, port },
      via: { host: between, port: firstPort + index },
    }));
    await network.divert(name, diversions);
  }
  return async () => {
    for (const { name } of source.agents) await network.divert(name, []);
    await process.signal("SIGKILL");
  };
}
