// Requests of the Container Storage Interface as they arrive when their sender says only what a test is about.
import type {
  CapacityRange,
  CreateVolumeRequest,
  TopologyRequirement,
  VolumeCapability,
  VolumeContentSource,
} from "../../src/csi/csi-messages.ts";
import { topologyOf } from "../../src/csi/topology.ts";

export const mounted: VolumeCapability = {
  accessMode: { mode: "SINGLE_NODE_WRITER" },
  accessType: "mount",
  mount: { fsType: "", mountFlags: [], volumeMountGroup: "" },
};

/** As for a class that names a file system. */
export const mountedAs = (fsType: string): VolumeCapability => ({
  ...mounted,
  mount: { fsType, mountFlags: [], volumeMountGroup: "" },
});

export const block: VolumeCapability = { accessMode: { mode: "SINGLE_NODE_WRITER" }, accessType: "block", block: {} };

export function createVolumeRequest(fields: Partial<CreateVolumeRequest> = {}): CreateVolumeRequest {
  return {
    name: "pvc-1",
    capacityRange: null,
    volumeCapabilities: [mounted],
    parameters: {},
    volumeContentSource: null,
    accessibilityRequirements: null,
    mutableParameters: {},
    ...fields,
  };
}

export function range(requiredBytes: number, limitBytes = 0): CapacityRange {
  return { requiredBytes, limitBytes };
}

export function fromSnapshot(snapshotId: string): VolumeContentSource {
  return { type: "snapshot", snapshot: { snapshotId } };
}

export function fromVolume(volumeId: string): VolumeContentSource {
  return { type: "volume", volume: { volumeId } };
}

/** Nodes by their names. */
export function onNodes(requisite: readonly string[], preferred: readonly string[] = []): TopologyRequirement {
  return { requisite: requisite.map(topologyOf), preferred: preferred.map(topologyOf) };
}
