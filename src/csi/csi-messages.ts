// The messages of the Container Storage Interface as the driver's services see them: camelCase fields, 64-bit numbers as numbers,
// enumerations by their names, what was not sent as its default (a message as null), and which field of a `oneof` was sent in a field
// of the `oneof`'s name. Secrets are left out: the driver uses none. The .proto files in proto/ are the other half; what only the
// node's services say is in node-messages.ts.

type Texts = Readonly<Record<string, string>>;
type Nothing = Readonly<Record<never, never>>;

export interface Timestamp {
  readonly seconds: number;
  readonly nanos: number;
}

// ---- what several calls share ------------------------------------------------------------------------------------------

/** A mode of a later revision comes as its number. */
export type AccessMode =
  | "UNKNOWN"
  | "SINGLE_NODE_WRITER"
  | "SINGLE_NODE_READER_ONLY"
  | "MULTI_NODE_READER_ONLY"
  | "MULTI_NODE_SINGLE_WRITER"
  | "MULTI_NODE_MULTI_WRITER"
  | "SINGLE_NODE_SINGLE_WRITER"
  | "SINGLE_NODE_MULTI_WRITER"
  | number;

export interface MountVolume {
  readonly fsType: string;
  readonly mountFlags: readonly string[];
  readonly volumeMountGroup: string;
}

export interface VolumeCapability {
  readonly accessMode: { readonly mode: AccessMode } | null;
  readonly accessType?: "block" | "mount";
  readonly block?: Nothing;
  readonly mount?: MountVolume;
}

/** Nought is "not said". */
export interface CapacityRange {
  readonly requiredBytes: number;
  readonly limitBytes: number;
}

export interface VolumeContentSource {
  readonly type?: "snapshot" | "volume";
  readonly snapshot?: { readonly snapshotId: string };
  readonly volume?: { readonly volumeId: string };
}

export interface Topology {
  readonly segments: Texts;
}

export interface TopologyRequirement {
  readonly requisite: readonly Topology[];
  readonly preferred: readonly Topology[];
}

export interface Volume {
  readonly capacityBytes: number;
  readonly volumeId: string;
  readonly volumeContext: Texts;
  readonly contentSource: VolumeContentSource | null;
  readonly accessibleTopology: readonly Topology[];
}

export interface Snapshot {
  readonly sizeBytes: number;
  readonly snapshotId: string;
  readonly sourceVolumeId: string;
  readonly creationTime: Timestamp;
  readonly readyToUse: boolean;
  readonly groupSnapshotId: string;
}

// ---- identity ----------------------------------------------------------------------------------------------------------

export type GetPluginInfoRequest = Nothing;
export interface GetPluginInfoResponse {
  readonly name: string;
  readonly vendorVersion: string;
  readonly manifest: Texts;
}

export type PluginService =
  | "CONTROLLER_SERVICE"
  | "VOLUME_ACCESSIBILITY_CONSTRAINTS"
  | "GROUP_CONTROLLER_SERVICE"
  | "SNAPSHOT_METADATA_SERVICE";
export type PluginCapability =
  | { readonly service: { readonly type: PluginService } }
  | { readonly volumeExpansion: { readonly type: "ONLINE" | "OFFLINE" } };

export type GetPluginCapabilitiesRequest = Nothing;
export interface GetPluginCapabilitiesResponse {
  readonly capabilities: readonly PluginCapability[];
}

export type ProbeRequest = Nothing;
export interface ProbeResponse {
  readonly ready: { readonly value: boolean };
}

// ---- controller --------------------------------------------------------------------------------------------------------

export interface CreateVolumeRequest {
  readonly name: string;
  readonly capacityRange: CapacityRange | null;
  readonly volumeCapabilities: readonly VolumeCapability[];
  readonly parameters: Texts;
  readonly volumeContentSource: VolumeContentSource | null;
  readonly accessibilityRequirements: TopologyRequirement | null;
  readonly mutableParameters: Texts;
}
export interface CreateVolumeResponse {
  readonly volume: Volume;
}

export interface DeleteVolumeRequest {
  readonly volumeId: string;
}
export type DeleteVolumeResponse = Nothing;

export interface ValidateVolumeCapabilitiesRequest {
  readonly volumeId: string;
  readonly volumeContext: Texts;
  readonly volumeCapabilities: readonly VolumeCapability[];
  readonly parameters: Texts;
  readonly mutableParameters: Texts;
}
export interface ConfirmedCapabilities {
  readonly volumeContext: Texts;
  readonly volumeCapabilities: readonly VolumeCapability[];
  readonly parameters: Texts;
}
export interface ValidateVolumeCapabilitiesResponse {
  readonly confirmed: ConfirmedCapabilities | null;
  readonly message: string;
}

export interface ListVolumesRequest {
  readonly maxEntries: number;
  readonly startingToken: string;
}
export interface ListVolumesResponse {
  readonly entries: readonly { readonly volume: Volume }[];
  readonly nextToken: string;
}

export interface GetCapacityRequest {
  readonly volumeCapabilities: readonly VolumeCapability[];
  readonly parameters: Texts;
  readonly accessibleTopology: Topology | null;
}
export interface GetCapacityResponse {
  readonly availableCapacity: number;
  readonly maximumVolumeSize: { readonly value: number };
  readonly minimumVolumeSize: { readonly value: number };
}

export type ControllerCapability =
  | "CREATE_DELETE_VOLUME"
  | "LIST_VOLUMES"
  | "GET_CAPACITY"
  | "CREATE_DELETE_SNAPSHOT"
  | "LIST_SNAPSHOTS"
  | "CLONE_VOLUME"
  | "EXPAND_VOLUME"
  | "SINGLE_NODE_MULTI_WRITER";
export type ControllerGetCapabilitiesRequest = Nothing;
export interface ControllerGetCapabilitiesResponse {
  readonly capabilities: readonly { readonly rpc: { readonly type: ControllerCapability } }[];
}

export interface CreateSnapshotRequest {
  readonly sourceVolumeId: string;
  readonly name: string;
  readonly parameters: Texts;
}
export interface CreateSnapshotResponse {
  readonly snapshot: Snapshot;
}

export interface DeleteSnapshotRequest {
  readonly snapshotId: string;
}
export type DeleteSnapshotResponse = Nothing;

export interface ListSnapshotsRequest {
  readonly maxEntries: number;
  readonly startingToken: string;
  readonly sourceVolumeId: string;
  readonly snapshotId: string;
}
export interface ListSnapshotsResponse {
  readonly entries: readonly { readonly snapshot: Snapshot }[];
  readonly nextToken: string;
}

export interface ControllerExpandVolumeRequest {
  readonly volumeId: string;
  readonly capacityRange: CapacityRange | null;
  readonly volumeCapability: VolumeCapability | null;
}
export interface ControllerExpandVolumeResponse {
  readonly capacityBytes: number;
  readonly nodeExpansionRequired: boolean;
}

// ---- groups ------------------------------------------------------------------------------------------------------------

export type GroupControllerGetCapabilitiesRequest = Nothing;
export interface GroupControllerGetCapabilitiesResponse {
  readonly capabilities: readonly { readonly rpc: { readonly type: "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT" } }[];
}

export interface VolumeGroupSnapshot {
  readonly groupSnapshotId: string;
  readonly snapshots: readonly Snapshot[];
  readonly creationTime: Timestamp;
  readonly readyToUse: boolean;
}

export interface CreateVolumeGroupSnapshotRequest {
  readonly name: string;
  readonly sourceVolumeIds: readonly string[];
  readonly parameters: Texts;
}
export interface CreateVolumeGroupSnapshotResponse {
  readonly groupSnapshot: VolumeGroupSnapshot;
}

export interface DeleteVolumeGroupSnapshotRequest {
  readonly groupSnapshotId: string;
  readonly snapshotIds: readonly string[];
}
export type DeleteVolumeGroupSnapshotResponse = Nothing;

export interface GetVolumeGroupSnapshotRequest {
  readonly groupSnapshotId: string;
  readonly snapshotIds: readonly string[];
}
export interface GetVolumeGroupSnapshotResponse {
  readonly groupSnapshot: VolumeGroupSnapshot;
}

// ---- snapshot metadata -------------------------------------------------------------------------------------------------

export interface BlockMetadata {
  readonly byteOffset: number;
  readonly sizeBytes: number;
}

export interface SnapshotMetadataResponse {
  readonly blockMetadataType: "VARIABLE_LENGTH";
  readonly volumeCapacityBytes: number;
  readonly blockMetadata: readonly BlockMetadata[];
}

export interface GetMetadataAllocatedRequest {
  readonly snapshotId: string;
  readonly startingOffset: number;
  readonly maxResults: number;
}
export interface GetMetadataDeltaRequest {
  readonly baseSnapshotId: string;
  readonly targetSnapshotId: string;
  readonly startingOffset: number;
  readonly maxResults: number;
}
