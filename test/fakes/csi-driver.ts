// The driver's controller services over a real socket, in front of whole engines: what `longshore csi controller` is, in this process.
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { controllerService } from "../../src/csi/controller.ts";
import { groupControllerService } from "../../src/csi/group-controller.ts";
import { openGrpcServer } from "../../src/csi/grpc-server.ts";
import { identityService, pluginCapabilities } from "../../src/csi/identity.ts";
import { snapshotMetadataService } from "../../src/csi/snapshot-metadata.ts";
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
  const [first] = agents;
  const cluster = openClusterClient({
    first: first.engine.api,
    open(address) {
      const agent = agents.find(({ host }) => address === `${host}:1`);
      if (agent === undefined) throw new Error(`no agent at ${address}`);
      return { ...agent.engine.api, close: async () => undefined };
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
    async close() {
      for (const client of Object.values(clients)) client.close();
      await server.close();
      await cluster.close();
      await folder.remove();
    },
  };
}
