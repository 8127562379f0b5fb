// A real agent server on loopback, with real certificates of our own making, in front of the fake agent.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PeerCaller } from "../../src/agent/peer-handlers.ts";
import { type AgentServer, openAgentServer } from "../../src/agent/server.ts";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { type Log, silentLog } from "../../src/base/log.ts";
import { openMetrics } from "../../src/base/metrics.ts";
import type { Role } from "../../src/domain/identity.ts";
import { initAuthority, issueInto } from "../../src/pki/folder.ts";
import { openAgentClient } from "../../src/wire/agent-client.ts";
import { type Credentials, openCredentials } from "../../src/wire/credentials.ts";
import { understoodHere } from "../../src/wire/understood.ts";
import { freePort } from "../e2e/free-port.ts";
import { FakeAgent } from "./fake-agent.ts";
import { FakePeer } from "./fake-peer.ts";
import { ScriptedMember } from "./scripted-member.ts";

const context = { clock: systemClock, dice: systemDice };

/** A cluster's CA and certificates in a folder of its own. */
export interface TestPki {
  readonly dir: string;
  readonly clusterUid: string;
  readonly caPem: string;
  /** Credentials of a role; issued when first asked for. */
  credentials(role: Role): Promise<Credentials>;
  /** The files of a role's credentials. */
  files(role: Role): { certFile: string; keyFile: string; caFile: string };
  /** Replaces a role's certificate and key. */
  renew(role: Role): Promise<void>;
  remove(): Promise<void>;
}

export async function testPki(clusterName: string, clusterUid = `uid-${clusterName}`): Promise<TestPki> {
  const root = await mkdtemp(join(tmpdir(), "longshore-agent-"));
  const dir = join(root, "pki");
  const { certFile: caFile } = await initAuthority(dir, { clusterName, clusterUid }, context);
  const opened: Credentials[] = [];
  const files = (role: Role) => ({ certFile: join(dir, `${role}.crt`), keyFile: join(dir, `${role}.key`), caFile });
  const issue = (role: Role, renew: boolean) =>
    issueInto(dir, { role, names: ["127.0.0.1"], days: 90, name: role, renew }, context);

  return {
    dir,
    clusterUid,
    caPem: await readFile(caFile, "utf8"),
    files,
    async credentials(role) {
      await issue(role, false);
      const credentials = await openCredentials(files(role));
      opened.push(credentials);
      return credentials;
    },
    async renew(role) {
      await issue(role, true);
    },
    async remove() {
      for (const credentials of opened) credentials.close();
      await rm(root, { recursive: true });
    },
  };
}

export interface SecureAgent {
  readonly pki: TestPki;
  /** What stands behind the server now. */
  readonly fake: FakeAgent;
  readonly server: AgentServer;
  /** One target for each foreign cluster that came. */
  readonly peers: Map<string, FakePeer>;
  /** What the other agents of the cluster meet. */
  readonly member: ScriptedMember;
  readonly peerCallers: PeerCaller[];
  client(role: Role, options?: { reconnectMs?: number }): Promise<ReturnType<typeof openAgentClient>>;
  /** Puts an empty fake behind the server, for the next test: cheaper than another server. */
  reset(): void;
  /** Stops and starts the server at the same address, the fake behind it unchanged. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

export interface SecureAgentOptions {
  readonly log?: Log;
  readonly notReady?: () => string | undefined;
}

export async function secureAgent(pki: TestPki, options: SecureAgentOptions = {}): Promise<SecureAgent> {
  const empty = () => new FakeAgent({ clusterUid: pki.clusterUid });
  let fake = empty();
  const peers = new Map<string, FakePeer>();
  const peerCallers: PeerCaller[] = [];
  const member = new ScriptedMember();
  const clients: { close(): Promise<void> }[] = [];
  const credentials = await pki.credentials("agent");
  const open = (port: number) =>
    openAgentServer({
      agentId: fake.view.agentId,
      api: forwarding(() => fake),
      peerFor(caller) {
        peerCallers.push(caller);
        const hello = { clusterUid: pki.clusterUid, understands: understoodHere() };
        const peer = peers.get(caller.clusterUid) ?? new FakePeer(hello);
        peers.set(caller.clusterUid, peer);
        return peer;
      },
      member: member.api,
      consents: () => [...fake.sources.values()].map(({ name, spec, clusterUid }) => ({ name, ...spec, clusterUid })),
      notReady: options.notReady ?? (() => undefined),
      credentials,
      listen: { host: "127.0.0.1", port },
      version: "0.0.0",
      ...context,
      log: options.log ?? silentLog,
      metrics: openMetrics(),
      stopMs: 1_000,
    });
  // One that nobody's outgoing connection takes while the server is restarted.
  let server = await open(await freePort());
  return {
    pki,
    get fake() {
      return fake;
    },
    reset() {
      fake = empty();
      peers.clear();
      peerCallers.length = 0;
    },
    get server() {
      return server;
    },
    peers,
    member,
    peerCallers,
    async client(role, more = {}) {
      const credentials = await pki.credentials(role);
      const client = openAgentClient({ addresses: [server.address], credentials, ...more });
      clients.push(client);
      return client;
    },
    async restart() {
      const port = Number(server.address.split(":").at(-1));
      await server.close();
      server = await open(port);
    },
    async close() {
      await Promise.all(clients.map((client) => client.close()));
      await server.close();
    },
  };
}

/** Whatever `current` gives at the time of each call. */
function forwarding(current: () => FakeAgent): FakeAgent {
  return new Proxy({} as FakeAgent, {
    get(_, name) {
      const value: unknown = Reflect.get(current(), name, current());
      return typeof value === "function" ? value.bind(current()) : value;
    },
  });
}
