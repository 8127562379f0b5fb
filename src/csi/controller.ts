// The Controller service of the Container Storage Interface: what is asked of the storage cluster as a whole.
import type { ClusterApi } from "../wire/cluster-client.ts";
import { capacityOf } from "./capacity.ts";
import type {
  ControllerCapability,
  ControllerGetCapabilitiesRequest,
  ControllerGetCapabilitiesResponse,
  GetCapacityRequest,
  GetCapacityResponse,
} from "./csi-messages.ts";
import type { GrpcService } from "./grpc-server.ts";
import { oneOperationAtATime } from "./one-operation.ts";
import { sharedReading } from "./shared-reading.ts";
import { snapshotCalls } from "./snapshots.ts";
import { volumeCalls } from "./volumes.ts";

/** Exactly what is carried out. Volumes need not be attached, and what is not listed is answered with UNIMPLEMENTED. */
export const controllerCapabilities: readonly ControllerCapability[] = [
  "CREATE_DELETE_VOLUME",
  "LIST_VOLUMES",
  "GET_CAPACITY",
  "CREATE_DELETE_SNAPSHOT",
  "LIST_SNAPSHOTS",
  "CLONE_VOLUME",
  "EXPAND_VOLUME",
  "SINGLE_NODE_MULTI_WRITER",
];

export function controllerService({ cluster }: { readonly cluster: ClusterApi }): GrpcService {
  const listVolumes = sharedReading(() => cluster.listVolumes());
  const parts = { cluster, listVolumes, oneOperation: oneOperationAtATime() };
  return {
    protoFile: "csi.proto",
    service: "csi.v1.Controller",
    calls: {
      ...volumeCalls(parts),
      ...snapshotCalls(parts),
      GetCapacity(request: GetCapacityRequest): Promise<GetCapacityResponse> {
        return capacityOf(cluster, request);
      },
      async ControllerGetCapabilities(
        _request: ControllerGetCapabilitiesRequest,
      ): Promise<ControllerGetCapabilitiesResponse> {
        return { capabilities: controllerCapabilities.map((type) => ({ rpc: { type } })) };
      },
    },
  };
}
