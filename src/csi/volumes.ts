// The controller's calls about volumes: made, deleted, grown, shown. How they are made is in create-volume.ts.
import { metadataKey } from "../api/names.ts";
import { isVolumeHandle, renderSnapshotHandle } from "../domain/handles.ts";
import { isCloneSnapshot } from "../domain/names.ts";
import type { MergedList } from "../wire/cluster-agents.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { SnapshotView, VolumeView } from "../wire/schemas.ts";
import { isOperators } from "./agent-names.ts";
import { createVolume, readWish } from "./create-volume.ts";
import type {
  ControllerExpandVolumeRequest,
  ControllerExpandVolumeResponse,
  CreateVolumeRequest,
  CreateVolumeResponse,
  DeleteVolumeRequest,
  DeleteVolumeResponse,
  ListVolumesRequest,
  ListVolumesResponse,
  ValidateVolumeCapabilitiesRequest,
  ValidateVolumeCapabilitiesResponse,
  Volume,
  VolumeContentSource,
} from "./csi-messages.ts";
import { pageOf } from "./listing.ts";
import type { OneOperation } from "./one-operation.ts";
import { checkVolumeParameters, refuseMutableParameters } from "./parameters.ts";
import { chooseExpandedSize } from "./sizes.ts";
import { CsiError } from "./status.ts";
import { callRoll, nodeOf, orNothing, type Roll, requireAll } from "./storage-cluster.ts";
import { topologyOf } from "./topology.ts";
import { useOf } from "./volume-capabilities.ts";

export interface VolumeParts {
  readonly cluster: ClusterApi;
  /** Shared by all calls that change a volume. */
  readonly oneOperation: OneOperation;
  readonly listVolumes: () => Promise<MergedList<VolumeView>>;
}

export function volumeCalls({ cluster, oneOperation, listVolumes }: VolumeParts) {
  return {
    async CreateVolume(request: CreateVolumeRequest, signal: AbortSignal): Promise<CreateVolumeResponse> {
      const wish = readWish(request);
      const made = await oneOperation.run(`volume ${wish.name}`, () => createVolume(cluster, wish, signal));
      const volume = messageOf(made, await callRoll(cluster));
      return { volume: { ...volume, contentSource: request.volumeContentSource } };
    },

    async DeleteVolume({ volumeId }: DeleteVolumeRequest, signal: AbortSignal): Promise<DeleteVolumeResponse> {
      requireId(volumeId);
      // No volume ever had such a handle, so what is to be deleted is gone.
      if (!isVolumeHandle(volumeId)) return {};
      await oneOperation.run(`volume ${volumeId}`, () => deleteVolume(cluster, volumeId, signal));
      return {};
    },

    async ControllerExpandVolume(request: ControllerExpandVolumeRequest): Promise<ControllerExpandVolumeResponse> {
      const { volumeId, capacityRange, volumeCapability } = request;
      requireId(volumeId);
      // A range that cannot be met at all is told before the volume is looked for.
      chooseExpandedSize(capacityRange, 0);
      if (volumeCapability !== null) useOf([volumeCapability]);
      const sizeBytes = await oneOperation.run(`volume ${volumeId}`, async () => {
        const volume = await existing(cluster, volumeId);
        const size = chooseExpandedSize(capacityRange, volume.sizeBytes);
        if (size > volume.sizeBytes) await cluster.putVolume(volumeId, { sizeBytes: size });
        return size;
      });
      // Raw block devices as well: the node's loop device has to be told of the new size.
      return { capacityBytes: sizeBytes, nodeExpansionRequired: true };
    },

    async ListVolumes(request: ListVolumesRequest): Promise<ListVolumesResponse> {
      // What is wrong with the request is told before anybody is asked.
      pageOf([], request, String);
      const volumes = await listVolumes();
      const roll = await callRoll(cluster);
      requireAll(roll, volumes);
      const { entries, nextToken } = pageOf(volumes.items, request, ({ name }) => name);
      return { entries: entries.map((volume) => ({ volume: messageOf(volume, roll) })), nextToken };
    },

    async ValidateVolumeCapabilities(
      request: ValidateVolumeCapabilitiesRequest,
    ): Promise<ValidateVolumeCapabilitiesResponse> {
      const { volumeId, volumeContext, volumeCapabilities, parameters } = request;
      requireId(volumeId);
      if (volumeCapabilities.length === 0) throw invalid("volume_capabilities is empty");
      const volume = await existing(cluster, volumeId);
      const problem = problemOf(request, volume);
      if (problem !== undefined) return { confirmed: null, message: problem };
      return { confirmed: { volumeContext, volumeCapabilities, parameters }, message: "" };
    },
  };
}

/**
 * Deletes a volume, or withdraws the request for a clone that has not been served yet. Snapshots that schedules took go with the volume;
 * those that somebody asked for are independent of it to Kubernetes, and keep it.
 */
async function deleteVolume(cluster: ClusterApi, name: string, signal: AbortSignal): Promise<void> {
  const volume = await orNothing(cluster.getVolume(name));
  signal.throwIfAborted();
  if (volume === undefined) return cluster.removeClone(name);
  const kept = volume.snapshots.filter(isUsers);
  if (kept.length > 0) {
    const snapshots = kept.map((snapshot) => snapshot.name).join(", ");
    const text = `volume ${name} has snapshots that would go with it; delete them first: ${snapshots}`;
    throw new CsiError("FAILED_PRECONDITION", text);
  }
  // A snapshot that was taken meanwhile has changed the revision.
  await cluster.removeVolume(name, { ifMatch: volume.revision });
}

/** Whether somebody asked for it. One that is there while the volume is being cloned is the agent's own, which says so itself. */
function isUsers({ name, released }: SnapshotView): boolean {
  return !released && !isOperators(name) && !isCloneSnapshot(name);
}

/** A handle that none of ours looks like is one of nothing. */
async function existing(cluster: ClusterApi, volumeId: string): Promise<VolumeView> {
  const volume = isVolumeHandle(volumeId) ? await orNothing(cluster.getVolume(volumeId)) : undefined;
  if (volume !== undefined) return volume;
  throw new CsiError("NOT_FOUND", `volume ${volumeId} does not exist`);
}

/** Why the volume cannot be used as asked; `undefined` when it can. */
function problemOf(request: ValidateVolumeCapabilitiesRequest, volume: VolumeView): string | undefined {
  try {
    const use = useOf(request.volumeCapabilities);
    checkVolumeParameters(request.parameters);
    refuseMutableParameters(request.mutableParameters);
    const mode = volume.metadata[metadataKey.volumeMode];
    return mode === undefined || mode === use.mode ? undefined : `volume ${volume.name} is of mode ${mode}`;
  } catch (error) {
    if (error instanceof CsiError) return error.message;
    throw error;
  }
}

/** A volume as Kubernetes sees it. Its context is empty: the node's plugin asks its agent. */
function messageOf(volume: VolumeView, roll: Roll): Volume {
  return {
    capacityBytes: volume.sizeBytes,
    volumeId: volume.name,
    volumeContext: {},
    contentSource: contentSourceOf(volume),
    accessibleTopology: [topologyOf(nodeOf(roll, volume.home))],
  };
}

function contentSourceOf({ from }: VolumeView): VolumeContentSource | null {
  if (from === undefined) return null;
  if (from.snapshot === undefined) return { volume: { volumeId: from.volume } };
  const { volume, snapshot } = from;
  return { snapshot: { snapshotId: renderSnapshotHandle({ kind: "snapshot", volume, snapshot }) } };
}

function requireId(volumeId: string): void {
  if (volumeId === "") throw invalid("volume_id is missing");
}

function invalid(message: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", message);
}
