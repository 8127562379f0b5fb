// How to reach and convince an API server: the kubeconfig, read by the client library, and connections that are kept.
// The library's own request path opens a new TLS connection for each request; this one keeps them alive, and makes new ones
// when certificates or tokens change on disk.
import * as http from "node:http";
import * as https from "node:https";
import { KubeConfig } from "@kubernetes/client-node";
import { unreachable } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";

/** Where the kubeconfig comes from; `default` is $KUBECONFIG, ~/.kube/config or the pod's ServiceAccount. */
export type KubeconfigSource =
  | { readonly kind: "file"; readonly path: string; readonly context?: string }
  | { readonly kind: "text"; readonly yaml: string }
  | { readonly kind: "default" };

export function loadKubeconfig(source: KubeconfigSource): KubeConfig {
  const config = new KubeConfig();
  switch (source.kind) {
    case "file":
      config.loadFromFile(source.path);
      if (source.context !== undefined) config.setCurrentContext(source.context);
      return config;
    case "text":
      config.loadFromString(source.yaml);
      return config;
    case "default":
      config.loadFromDefault();
      return config;
    default:
      return unreachable(source);
  }
}

/** What a request needs besides its own content. */
export interface Route {
  readonly server: URL;
  readonly headers: http.OutgoingHttpHeaders;
  readonly agent: http.Agent;
  /** `user:password`, for the few servers that still take it. */
  readonly auth?: string;
}

export interface Connection {
  /** For a short request, or a `stream` that holds its connection for minutes. */
  connect(use: "request" | "stream"): Promise<Route>;
  /** Reads credentials anew at the next connect, after the server refused those at hand. */
  refresh(): void;
  /** Closes idle connections; those in use end with their requests. */
  close(): void;
}

/** Tokens and certificates are looked at again this often; kubelet renews them long before they end. */
const credentialsMaxAgeMs = 30_000;
/** Short requests at once; more wait for a free connection. */
const socketsMax = 16;
/** A silent connection is probed by TCP from then on, so that a machine that went away is noticed. */
const keepAliveProbeMs = 30_000;

/** What was read from the kubeconfig and the files that it names, and the connections made with it. */
interface Credentials {
  /** Two readings of the same certificates have the same, so that connections are kept while nothing changed. */
  readonly fingerprint: string;
  readonly headers: http.OutgoingHttpHeaders;
  readonly basicAuth: string | undefined;
  readonly agents: Readonly<Record<"request" | "stream", http.Agent>>;
}

export function openConnection(config: KubeConfig, clock: Clock): Connection {
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw new Error("the kubeconfig names no current cluster");
  const server = new URL(cluster.server);
  let credentials: Credentials | undefined;
  let readAtMs = Number.NEGATIVE_INFINITY;
  const current = async () => {
    if (credentials === undefined || clock.monotonicMs() - readAtMs > credentialsMaxAgeMs) {
      credentials = await readCredentials(config, { server, previous: credentials });
      readAtMs = clock.monotonicMs();
    }
    return credentials;
  };
  return {
    connect: async (use) => {
      const { agents, headers, basicAuth } = await current();
      return { server, headers, agent: agents[use], ...(basicAuth !== undefined && { auth: basicAuth }) };
    },
    refresh: () => {
      readAtMs = Number.NEGATIVE_INFINITY;
    },
    close: () => credentials !== undefined && closeAgents(credentials),
  };
}

async function readCredentials(
  config: KubeConfig,
  { server, previous }: { readonly server: URL; readonly previous: Credentials | undefined },
): Promise<Credentials> {
  const read: https.RequestOptions = {};
  await config.applyToHTTPSOptions(read);
  const headers = (read.headers ?? {}) as http.OutgoingHttpHeaders;
  const basicAuth = read.auth ?? undefined;
  const { ca, cert, key, pfx, passphrase, rejectUnauthorized, servername } = read;
  const tls = present({ ca, cert, key, pfx, passphrase, rejectUnauthorized, servername });
  const fingerprint = JSON.stringify(tls, (_name, value: unknown) =>
    value instanceof Uint8Array ? String(value) : value,
  );
  if (previous?.fingerprint === fingerprint) return { ...previous, headers, basicAuth };
  if (previous !== undefined) closeAgents(previous);
  const agents = config.getCurrentCluster()?.proxyUrl === undefined ? openAgents(server, tls) : proxied(read);
  return { fingerprint, headers, basicAuth, agents };
}

function openAgents(server: URL, tls: https.AgentOptions): Credentials["agents"] {
  const Agent = server.protocol === "http:" ? http.Agent : https.Agent;
  const options = { ...tls, keepAlive: true, keepAliveMsecs: keepAliveProbeMs };
  return { request: new Agent({ ...options, maxSockets: socketsMax }), stream: new Agent(options) };
}

/** Through a proxy, the library's agent is used as it is. */
function proxied({ agent }: https.RequestOptions): Credentials["agents"] {
  if (!(agent instanceof http.Agent)) throw new Error("the kubeconfig's proxy-url cannot be used");
  return { request: agent, stream: agent };
}

function closeAgents({ agents }: Credentials): void {
  // Only idle connections end: a request that runs keeps its own until it is done.
  for (const agent of [agents.request, agents.stream]) {
    for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }
}

function present<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}
