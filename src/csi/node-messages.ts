// The messages of csi.v1.Node and of the kubelet's plugin registration, as the services on a node see them: camelCase fields, what was
// not sent as its default (a message as null), the names of enumerations. Secrets are left out: the driver uses none.

type Texts = Readonly<Record<string, string>>;

export interface NodeMount {
  readonly fsType: string;
  readonly mountFlags: readonly string[];
  readonly volumeMountGroup: string;
}

export interface NodeCapabilityAsked {
  /** A mode of a later revision of the interface comes as its number. */
  readonly accessMode: { readonly mode: string | number } | null;
  readonly block?: object | null;
  readonly mount?: NodeMount | null;
}

export interface NodeStageVolumeRequest {
  readonly volumeId: string;
  readonly stagingTargetPath: string;
  readonly volumeCapability: NodeCapabilityAsked | null;
}

export interface NodeUnstageVolumeRequest {
  readonly volumeId: string;
  readonly stagingTargetPath: string;
}

export interface NodePublishVolumeRequest {
  readonly volumeId: string;
  readonly stagingTargetPath: string;
  readonly targetPath: string;
  readonly volumeCapability: NodeCapabilityAsked | null;
  readonly readonly: boolean;
  readonly volumeContext: Texts;
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
  /** Nought is "not said". */
  readonly capacityRange: { readonly requiredBytes: number } | null;
  readonly volumeCapability: NodeCapabilityAsked | null;
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
  readonly accessibleTopology: { readonly segments: Texts };
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
