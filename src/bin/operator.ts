// The operator as a process: reconcilers over one API server and the agents of one storage cluster, with probes and metrics.
import { hostname } from "node:os";
import { type Clock, systemClock } from "../base/clock.ts";
import { type Dice, systemDice } from "../base/dice.ts";
import { type Log, type LogLevel, openLog } from "../base/log.ts";
import { type Metrics, openMetrics } from "../base/metrics.ts";
import { AgentFleet } from "../controllers/agent-fleet.ts";
import { openControllers, routeNews } from "../controllers/controllers.ts";
import type { Cluster, Source } from "../kube/cluster.ts";
import type { KubeconfigSource } from "../kube/connection.ts";
import { type OperatorPhase, runOperator } from "../kube/operator.ts";
import { openAgentClient } from "../wire/agent-client.ts";
import { type CredentialFiles, type Credentials, openCredentials } from "../wire/credentials.ts";
import { type Listen, openProbes, type Probes } from "./probes.ts";

export interface OperatorConfig {
  readonly kubeconfig: KubeconfigSource;
  /** host:port of agents of the own storage cluster; one that answers yields the others. */
  readonly agents: readonly string[];
  readonly credentials: CredentialFiles;
  /** Absent: this process is the only operator of its cluster. */
  readonly lease?: { readonly namespace: string; readonly name: string };
  /** Where health and metrics are served; absent for nowhere. */
  readonly listen?: Listen;
  readonly logLevel: LogLevel;
}

export interface OperatorParts {
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** The parts of a real process. */
export function systemParts(logLevel: LogLevel): OperatorParts {
  return {
    clock: systemClock,
    dice: systemDice,
    log: openLog({ name: "operator", level: logLevel }),
    metrics: openMetrics(),
  };
}

/** How long a broken change stream is tried again before everything is listed anew. */
const reconnectMs = 10_000;

/**
 * Runs until the signal aborts (`stopped`), or until another operator has taken over (`deposed`: the process should end with an
 * error, so that it is started afresh).
 */
export async function runOperatorProcess(
  config: OperatorConfig,
  parts: OperatorParts,
  signal: AbortSignal,
): Promise<"stopped" | "deposed"> {
  const { clock, log, metrics } = parts;
  const credentials = await openCredentials(config.credentials, { clock, log });
  let phase: OperatorPhase = "syncing";
  const probes = config.listen && (await openProbes(config.listen, { metrics, phase: () => phase }));
  try {
    if (probes) log.info({ address: probes.address }, "probes and metrics are served");
    return await operate(config, parts, { credentials, signal }, (next) => {
      phase = next;
      log.info({ phase }, "operator phase");
    });
  } finally {
    await close(probes, credentials);
  }
}

async function close(probes: Probes | undefined, credentials: Credentials): Promise<void> {
  await probes?.close();
  credentials.close();
}

async function operate(
  config: OperatorConfig,
  parts: OperatorParts,
  { credentials, signal }: { credentials: Credentials; signal: AbortSignal },
  onPhase: (phase: OperatorPhase) => void,
): Promise<"stopped" | "deposed"> {
  const { clock, dice, log, metrics } = parts;
  // The fleet has to know which controllers exist, and the controllers the fleet.
  let fleet: AgentFleet | undefined;
  const controllers = (cluster: Cluster) => {
    const connect = (address: string, agentId?: string) =>
      openAgentClient({ addresses: [address], agentId, credentials, reconnectMs, clock, dice });
    fleet = new AgentFleet({ clock, dice, log, seeds: config.agents, connect, route: routeNews(cluster) });
    return openControllers({ cluster, agents: fleet, clock, metrics });
  };
  const sources = (): readonly Source[] => (fleet === undefined ? [] : [fleet]);
  const identity = `${hostname()}_${dice.uuid()}`;
  return runOperator({
    kubeconfig: config.kubeconfig,
    controllers,
    sources,
    metrics,
    log,
    signal,
    onPhase,
    clock,
    dice,
    ...(config.lease && { leaderElection: { lease: config.lease, identity } }),
  });
}
