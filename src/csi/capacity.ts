// How much room there is for volumes. Volumes take only the room of what is written to them, so this is no promise, and no limit either:
// it is what is free on the nodes that answer.
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { GetCapacityRequest, GetCapacityResponse, VolumeCapability } from "./csi-messages.ts";
import { checkVolumeParameters } from "./parameters.ts";
import { blockBytes, floorToBlock, leastBytes, sizeBytesMax } from "./sizes.ts";
import { callRoll } from "./storage-cluster.ts";
import { isIn } from "./topology.ts";
import { useOf } from "./volume-capabilities.ts";

/**
 * The room on the nodes of a topology, or on all. The largest volume is what is free on the node with most of it. Throws
 * INVALID_ARGUMENT for parameters and capabilities that no volume could be made with.
 */
export async function capacityOf(cluster: ClusterApi, request: GetCapacityRequest): Promise<GetCapacityResponse> {
  const { volumeCapabilities, parameters, accessibleTopology } = request;
  checkVolumeParameters(parameters);
  const least = volumeCapabilities.length === 0 ? blockBytes : leastBytes(useOf(volumeCapabilities.map(inAnyMode)));
  const { agents } = await callRoll(cluster);
  const free = agents
    .filter(({ node }) => accessibleTopology === null || isIn(accessibleTopology, node))
    .map(({ freeBytes }) => floorToBlock(freeBytes));
  return {
    availableCapacity: free.reduce((sum, bytes) => sum + bytes, 0),
    maximumVolumeSize: { value: Math.min(sizeBytesMax, Math.max(0, ...free)) },
    minimumVolumeSize: { value: least },
  };
}

/** The room does not depend on the access mode, so csi-provisioner asks without one. */
function inAnyMode(capability: VolumeCapability): VolumeCapability {
  const { accessMode } = capability;
  const isSaid = accessMode !== null && accessMode.mode !== "UNKNOWN";
  return isSaid ? capability : { ...capability, accessMode: { mode: "SINGLE_NODE_WRITER" } };
}
