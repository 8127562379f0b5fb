// The messages of csi.v1.Node and of the kubelet's plugin registration, in the form that csi-messages.ts tells of.
import type { CapacityRange, Topology, VolumeCapability } from "./csi-messages.ts";

export interface NodeStageVolumeRequest {
  readonly volumeId: string;
  readonly stagingTargetPath: string;
  readonly volumeCapability: VolumeCapability | null;
}

export interface NodeUnstageVolumeRequest {
  readonly volumeId: string;
  readonly stagingTargetPath: string;
}

export interface NodePublishVolumeRequest {
  readonly volumeId: string;
  readonly stagingTargetPath: string;
  readonly targetPath: string;
  readonly volumeCapability: VolumeCapability | null;
  readonly readonly: boolean;
  readonly volumeContext: Readonly<Record<string, string>>;
}

export interface NodeUnpublishVolumeRequest {
  readonly volumeId: string;
  readonly targetPath: string;
}

export interface NodeGetVolumeStatsRequest {
  readonly volumeId: string;
  readonly volumePath: string;
}

export interface NodeVolumeUsage {
  readonly unit: "BYTES" | "INODES";
  readonly total: number;
  readonly used?: number;
  readonly available?: number;
}

export interface NodeGetVolumeStatsResponse {
  readonly usage: readonly NodeVolumeUsage[];
}

export interface NodeExpandVolumeRequest {
  readonly volumeId: string;
  readonly volumePath: string;
  readonly stagingTargetPath: string;
  readonly capacityRange: Pick<CapacityRange, "requiredBytes"> | null;
  readonly volumeCapability: VolumeCapability | null;
}

export interface NodeExpandVolumeResponse {
  readonly capacityBytes: number;
}

export interface NodeGetCapabilitiesResponse {
  readonly capabilities: readonly { readonly rpc: { readonly type: string } }[];
}

export interface NodeGetInfoResponse {
  readonly nodeId: string;
  /** Nought: as many as Kubernetes wants. */
  readonly maxVolumesPerNode: number;
  readonly accessibleTopology: Topology;
}

export interface PluginInfo {
  readonly type: string;
  readonly name: string;
  readonly endpoint: string;
  readonly supportedVersions: readonly string[];
}

export interface RegistrationStatus {
  readonly pluginRegistered: boolean;
  readonly error: string;
}
