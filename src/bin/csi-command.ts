// `longshore csi controller` and `longshore csi node`: the two processes of the CSI driver, until they are told to stop.
import { once } from "node:events";
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { isServed, socketPathOf } from "../csi/unix-socket.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { Credentials } from "../wire/credentials.ts";
import { listenOf, logLevelOf } from "./operator-command.ts";
import { openProbes } from "./probes.ts";
import type { Streams } from "./streams.ts";
import { version } from "./version.ts";

interface ProcessOptions {
  readonly endpoint: string;
  /** Of a node's process. */
  readonly registration?: string;
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
  readonly listen?: string;
  readonly logLevel: string;
}

interface ControllerOptions extends ProcessOptions {
  readonly agents: string;
}

interface NodeOptions extends ProcessOptions {
  readonly node: string;
  readonly agent: string;
  readonly kubeletDir: string;
  readonly stateDir: string;
  readonly registrationEndpoint?: string;
}

export function addCsiCommand(program: Command, streams: Streams): void {
  const csi = program.command("csi").description("The CSI driver, csi.longshore.dev.");
  withProcessOptions(csi.command("controller"))
    .description("Serve the calls about the cluster's volumes and snapshots, until SIGTERM or SIGINT.")
    .requiredOption("--agents <host:port,...>", "agents of this cluster; one that answers yields the others")
    .action((options: ControllerOptions) => runProcess("csi-controller", options, streams, serveController(options)));
  withProcessOptions(csi.command("node"))
    .description("Serve the kubelet of this node, as root, until SIGTERM or SIGINT.")
    .requiredOption("--node <name>", "the node, as Kubernetes and its agent call it")
    .requiredOption("--agent <host:port>", "the agent of this node")
    .option("--kubelet-dir <dir>", "the kubelet's folder, under the path it has for the kubelet", "/var/lib/kubelet")
    .option("--state-dir <dir>", "what has to outlive this process is noted there", "/var/lib/longshore-csi")
    .option("--registration <unix:///path>", "where the kubelet looks for plugins; not registered when not given")
    .option("--registration-endpoint <path>", "the socket of --endpoint as the kubelet sees it; the same unless given")
    .action((options: NodeOptions) => runProcess("csi-node", options, streams, serveNode(options)));
}

function withProcessOptions(command: Command): Command {
  return command
    .requiredOption("--endpoint <unix:///path>", "the socket to serve at")
    .requiredOption("--cert <file>", "the driver's certificate, of role csi")
    .requiredOption("--key <file>", "its key")
    .requiredOption("--ca <file>", "the CA bundle of this cluster")
    .option("--listen <[host]:port>", "where /healthz, /readyz and /metrics are served; nowhere when not given")
    .option("--log-level <level>", "trace, debug, info, warn or error", "info");
}

interface Parts {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly credentials: Credentials;
}

interface Closable {
  close(): Promise<void>;
}

/** Begins to serve; what it opened is added to `opened` as it goes, and closed from the last to the first. */
type Serve = (parts: Parts, opened: Closable[]) => Promise<void>;

async function runProcess(name: string, options: ProcessOptions, streams: Streams, serve: Serve): Promise<void> {
  const level = logLevelOf(options.logLevel);
  const listen = options.listen === undefined ? undefined : listenOf(options.listen);
  socketPathOf(options.endpoint);
  // Loaded here, for a person's `longshore job list` should not wait for it.
  const { openLog } = await import("../base/log.ts");
  const { openMetrics } = await import("../base/metrics.ts");
  const { openCredentials } = await import("../wire/credentials.ts");
  const { cert, key, ca } = options;
  const log = openLog({ name, level });
  const credentials = await openCredentials({ certFile: cert, keyFile: key, caFile: ca }, { clock: systemClock, log });
  const metrics = openMetrics();
  const opened: Closable[] = [{ close: async () => credentials.close() }];
  try {
    let isServing = false;
    if (listen !== undefined) {
      const phase = async () => {
        if (!isServing) return "syncing";
        return (await areServed(options)) ? "serving" : "ended";
      };
      const probes = await openProbes(listen, { metrics, phase });
      opened.push(probes);
      log.info({ address: probes.address }, "probes and metrics are served");
    }
    await serve({ log, metrics, credentials }, opened);
    isServing = true;
    streams.err(`longshore ${name.replace("-", " ")} is ready: ${options.endpoint}\n`);
    log.info({ endpoint: options.endpoint, version }, "csi driver ready");
    if (!streams.stop.aborted) await once(streams.stop, "abort");
    log.info({ signal: String(streams.stop.reason?.message) }, "csi driver stopping");
  } finally {
    for (const one of opened.toReversed()) await one.close();
  }
  log.info({}, "csi driver stopped");
}

/** A socket that was removed below the process is served for nobody any more; only a start makes it anew. */
async function areServed({ endpoint, registration }: ProcessOptions): Promise<boolean> {
  const endpoints = registration === undefined ? [endpoint] : [endpoint, registration];
  const served = await Promise.all(endpoints.map((each) => isServed(socketPathOf(each))));
  return served.every(Boolean);
}

function serveController({ endpoint, agents }: ControllerOptions): Serve {
  return async ({ log, metrics, credentials }, opened) => {
    const addresses = agents.split(",").filter((address) => address !== "");
    if (addresses.length === 0) throw new LongshoreError("BadRequest", "--agents is empty: write host:port,…");
    const { openAgentClient } = await import("../wire/agent-client.ts");
    const { openClusterClient } = await import("../wire/cluster-client.ts");
    const { openGrpcServer } = await import("../csi/grpc-server.ts");
    const { identityService, pluginCapabilities } = await import("../csi/identity.ts");
    const { controllerService } = await import("../csi/controller.ts");
    const { groupControllerService } = await import("../csi/group-controller.ts");
    const { snapshotMetadataService } = await import("../csi/snapshot-metadata.ts");
    const open = (seeds: readonly string[], agentId?: string) =>
      openAgentClient({ addresses: seeds, agentId, credentials });
    const first = open(addresses);
    opened.push(first);
    const cluster = openClusterClient({
      first,
      open: (address, agentId) => open([address], agentId),
      onSilent: ({ node, agentId }, problem) => log.warn({ node, agentId, problem }, "agent does not answer"),
    });
    opened.push(cluster);
    const services = [
      identityService({ version, capabilities: pluginCapabilities }),
      controllerService({ cluster }),
      groupControllerService({ cluster }),
      snapshotMetadataService({ cluster }),
    ];
    opened.push(await openGrpcServer({ endpoint, services, log, clock: systemClock, metrics }));
  };
}

function serveNode(options: NodeOptions): Serve {
  const { endpoint, node, agent: address, kubeletDir, stateDir, registration } = options;
  return async ({ log, metrics, credentials }, opened) => {
    const { openAgentClient } = await import("../wire/agent-client.ts");
    const { openGrpcServer } = await import("../csi/grpc-server.ts");
    const { identityService, pluginCapabilities } = await import("../csi/identity.ts");
    const { nodeService } = await import("../csi/node.ts");
    const { openHost } = await import("../host/host.ts");
    const agent = openAgentClient({ addresses: [address], credentials });
    opened.push(agent);
    const clock = systemClock;
    const host = await openHost({ stateDir, kubeletDir, log, clock });
    const identity = identityService({ version, capabilities: pluginCapabilities });
    const services = [identity, nodeService({ agent, host, node, log, clock })];
    opened.push(await openGrpcServer({ endpoint, services, log, clock, metrics }));
    if (registration !== undefined) opened.push(await register(options, registration, log));
    void checkNode(agent, node, log);
  };
}

/** Tells when an agent answers that is another node's: what lies there cannot be mounted here. One that is away is not waited for. */
async function checkNode(agent: Pick<AgentApi, "describe">, node: string, log: Log): Promise<void> {
  const found = await agent.describe().then(
    (view) => view.node,
    () => undefined,
  );
  if (found !== undefined && found !== node) log.error({ node, found }, "--agent is the agent of another node");
}

/** Last, for the kubelet calls as soon as it has found the driver; and closed first, so that it does not call any more. */
async function register(options: NodeOptions, endpoint: string, log: Log): Promise<Closable> {
  const { openGrpcServer } = await import("../csi/grpc-server.ts");
  const { registrationService } = await import("../csi/registration.ts");
  const seenByKubelet = options.registrationEndpoint ?? socketPathOf(options.endpoint);
  if (!seenByKubelet.startsWith("/")) {
    throw new LongshoreError("BadRequest", `--registration-endpoint ${seenByKubelet}: write an absolute path`);
  }
  const services = [registrationService({ endpoint: seenByKubelet, log })];
  return openGrpcServer({ endpoint, services, log, clock: systemClock });
}
