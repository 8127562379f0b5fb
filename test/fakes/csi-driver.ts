// The driver's controller services over a real socket, in front of whole engines: what `longshore csi controller` is, in this process.
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { controllerService } from "../../src/csi/controller.ts";
import { groupControllerService } from "../../src/csi/group-controller.ts";
import { openGrpcServer } from "../../src/csi/grpc-server.ts";
import { identityService, pluginCapabilities } from "../../src/csi/identity.ts";
import { snapshotMetadataService } from "../../src/csi/snapshot-metadata.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import { openClusterClient } from "../../src/wire/cluster-client.ts";
import {
  type CsiClient,
  controller,
  groupController,
  identity,
  openCsiClient,
  snapshotMetadata,
} from "./csi-client.ts";
import type { Cluster } from "./engines.ts";
import { temporaryFolder } from "./temporary-folder.ts";

export interface CsiDriver {
  /** Agents that it does not reach, though others may. */
  readonly away: Set<Cluster>;
  readonly identity: CsiClient;
  readonly controller: CsiClient;
  readonly groupController: CsiClient;
  readonly snapshotMetadata: CsiClient;
  close(): Promise<void>;
}

/** `agents`: those of one cluster. */
export async function openCsiDriver(agents: readonly [Cluster, ...Cluster[]]): Promise<CsiDriver> {
  const folder = await temporaryFolder("csi");
  const endpoint = `unix://${join(folder.path, "csi.sock")}`;
  const away = new Set<Cluster>();
  const cluster = openClusterClient({
    first: reached(() => agents.find((agent) => isThere(agent, away)) ?? agents[0], away),
    open(address) {
      const agent = agents.find(({ host }) => address === `${host}:1`);
      if (agent === undefined) throw new Error(`no agent at ${address}`);
      return Object.assign(
        reached(() => agent, away),
        { close: async () => undefined },
      );
    },
    onSilent: () => undefined,
  });
  const server = await openGrpcServer({
    endpoint,
    services: [
      identityService({ version: "test", capabilities: pluginCapabilities }),
      controllerService({ cluster }),
      groupControllerService({ cluster }),
      snapshotMetadataService({ cluster }),
    ],
    log: silentLog,
    clock: systemClock,
  });
  const clients = {
    identity: openCsiClient(endpoint, identity),
    controller: openCsiClient(endpoint, controller),
    groupController: openCsiClient(endpoint, groupController),
    snapshotMetadata: openCsiClient(endpoint, snapshotMetadata),
  };
  return {
    ...clients,
    away,
    async close() {
      for (const client of Object.values(clients)) client.close();
      await server.close();
      await cluster.close();
      await folder.remove();
    },
  };
}

function isThere(agent: Cluster, away: ReadonlySet<Cluster>): boolean {
  return !agent.stopping.aborted && !away.has(agent);
}

/** An agent as it runs at the moment of a call. */
function reached(agent: () => Cluster, away: ReadonlySet<Cluster>): AgentApi {
  return new Proxy({} as AgentApi, {
    get(own, method: string) {
      if (method === "then" || Reflect.has(own, method)) return Reflect.get(own, method);
      return async (...args: unknown[]) => {
        const there = agent();
        if (!isThere(there, away)) throw new LongshoreError("Unreachable", `${there.name} does not answer`);
        const call = there.engine.api[method as keyof AgentApi] as unknown as (...given: unknown[]) => unknown;
        return call(...args);
      };
    },
  });
}
