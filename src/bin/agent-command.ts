// `longshore agent`: runs an agent until it is told to stop.
import { once } from "node:events";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { systemDice } from "../base/dice.ts";
import { keepHeapSmall } from "../base/memory.ts";
import type { Streams } from "./streams.ts";
import { version } from "./version.ts";

export function addAgentCommand(program: Command, streams: Streams): void {
  program
    .command("agent")
    .description("Run the agent of a storage node, until SIGTERM or SIGINT.")
    .requiredOption("--config <file>", "YAML configuration; see docs/agent.md")
    .action(({ config }: { config: string }) => runAgent(resolve(config), streams));
}

async function runAgent(file: string, streams: Streams): Promise<void> {
  keepHeapSmall();
  // Loaded here, for a person's `longshore job list` should not wait for an HTTP server, logs and metrics to load.
  const { openLog } = await import("../base/log.ts");
  const { openMetrics } = await import("../base/metrics.ts");
  const { readYamlFile } = await import("./yaml-file.ts");
  const { openAgent } = await import("../agent/agent.ts");
  const { parseAgentConfig } = await import("../agent/config.ts");
  const { tree, lineOf } = await readYamlFile(file);
  const config = parseAgentConfig(tree, { file, folder: dirname(file), lineOf });
  const log = openLog({ name: "agent", level: config.logLevel });
  const parts = { version, clock: systemClock, dice: systemDice, log, metrics: openMetrics() };
  const agent = await openAgent(config, parts);
  const { address, laneAddress, clusterUid, backend } = agent;
  streams.err(
    `longshore agent ${config.node} of cluster ${config.clusterName} (${clusterUid}) is ready: ` +
      `API ${address}, lanes ${laneAddress}, backend ${backend}, data ${config.dataDir}\n`,
  );
  log.info({ address, laneAddress, clusterUid, backend, version }, "agent ready");
  if (!streams.stop.aborted) await once(streams.stop, "abort");
  log.info({ signal: String(streams.stop.reason?.message) }, "agent stopping");
  await agent.close();
  log.info({}, "agent stopped");
}
