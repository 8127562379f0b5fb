// `longshore operator`: runs the operator until it is told to stop.
import type { Command } from "commander";
import type { LogLevel } from "../base/log.ts";
import { LongshoreError } from "../domain/errors.ts";
import { exitCodes } from "./failure.ts";
import type { OperatorConfig } from "./operator.ts";
import type { Listen } from "./probes.ts";
import type { Streams } from "./streams.ts";

interface OperatorOptions {
  readonly agents: string;
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
  readonly kubeconfig?: string;
  readonly lease?: string;
  readonly listen?: string;
  readonly logLevel: string;
}

export function addOperatorCommand(program: Command, streams: Streams): void {
  program
    .command("operator")
    .description("Run the operator of a Kubernetes cluster, until SIGTERM or SIGINT.")
    .requiredOption("--agents <host:port,...>", "agents of this cluster; one that answers yields the others")
    .requiredOption("--cert <file>", "the operator's certificate")
    .requiredOption("--key <file>", "its key")
    .requiredOption("--ca <file>", "the CA bundle of this cluster")
    .option("--kubeconfig <file>", "else $KUBECONFIG, ~/.kube/config, or the pod's ServiceAccount")
    .option("--lease <namespace/name>", "the Lease by which one of several operators leads; none for a single one")
    .option("--listen <[host]:port>", "where /healthz, /readyz and /metrics are served; nowhere when not given")
    .option("--log-level <level>", "trace, debug, info, warn or error", "info")
    .action(async (options: OperatorOptions) => {
      // Loaded here, for no other command should wait for the Kubernetes client to load.
      const { runOperatorProcess, systemParts } = await import("./operator.ts");
      const config = configOf(options);
      tellEnd(await runOperatorProcess(config, systemParts(config.logLevel), streams.stop), streams);
    });
}

/** Whoever starts processes starts a deposed one afresh, with nothing left of the time when it led. */
export function tellEnd(ended: "stopped" | "deposed", streams: Streams): void {
  if (ended === "stopped") return;
  streams.err("longshore: another operator leads now\n  next: Start this one again; it waits until it leads.\n");
  streams.exitCode = exitCodes.later.code;
}

function configOf(options: OperatorOptions): OperatorConfig {
  const { agents, cert, key, ca, kubeconfig, lease, listen } = options;
  return {
    agents: agents.split(",").filter((address) => address !== ""),
    credentials: { certFile: cert, keyFile: key, caFile: ca },
    kubeconfig: kubeconfig === undefined ? { kind: "default" } : { kind: "file", path: kubeconfig },
    logLevel: logLevelOf(options.logLevel),
    ...(lease !== undefined && { lease: leaseOf(lease) }),
    ...(listen !== undefined && { listen: listenOf(listen) }),
  };
}

const logLevels: readonly LogLevel[] = ["trace", "debug", "info", "warn", "error"];

export function logLevelOf(text: string): LogLevel {
  const level = logLevels.find((each) => each === text);
  if (level === undefined) throw new LongshoreError("BadRequest", `--log-level ${text}: use ${logLevels.join(", ")}`);
  return level;
}

function leaseOf(text: string): { namespace: string; name: string } {
  const [, namespace, name] = /^([a-z0-9-]+)\/([a-z0-9.-]+)$/.exec(text) ?? [];
  if (namespace !== undefined && name !== undefined) return { namespace, name };
  throw new LongshoreError("BadRequest", `--lease ${text}: write namespace/name`);
}

export function listenOf(text: string): Listen {
  const [, host, port] = /^(.*):(\d{1,5})$/.exec(text) ?? [];
  if (host === undefined || Number(port) > 65_535) {
    throw new LongshoreError("BadRequest", `--listen ${text}: write host:port or :port`);
  }
  return { port: Number(port), ...(host !== "" && { host: host.replace(/^\[|\]$/g, "") }) };
}
