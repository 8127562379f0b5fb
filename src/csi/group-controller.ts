// The GroupController service: snapshots of several volumes at one moment, wherever in the cluster they are. They are the agents'
// group snapshots under one group of their own, so those of consistency groups, which the operator takes, are out of reach.
import {
  isVolumeHandle,
  parseGroupSnapshotHandle,
  parseSnapshotHandle,
  renderGroupSnapshotHandle,
  type SnapshotHandle,
} from "../domain/handles.ts";
import type { MergedList } from "../wire/cluster-agents.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { SnapshotView, VolumeView } from "../wire/schemas.ts";
import { agentNameOf } from "./agent-names.ts";
import type {
  CreateVolumeGroupSnapshotRequest,
  CreateVolumeGroupSnapshotResponse,
  DeleteVolumeGroupSnapshotRequest,
  DeleteVolumeGroupSnapshotResponse,
  GetVolumeGroupSnapshotRequest,
  GetVolumeGroupSnapshotResponse,
  GroupControllerGetCapabilitiesRequest,
  GroupControllerGetCapabilitiesResponse,
  VolumeGroupSnapshot,
} from "./csi-messages.ts";
import type { GrpcService } from "./grpc-server.ts";
import { type OneOperation, oneOperationAtATime } from "./one-operation.ts";
import { checkSnapshotParameters } from "./parameters.ts";
import { sharedReading } from "./shared-reading.ts";
import { csiGroup, isOfCsiGroup, snapshotMessage, snapshotsOf } from "./snapshot-messages.ts";
import { CsiError } from "./status.ts";
import { callRoll, requireAll } from "./storage-cluster.ts";

export interface GroupParts {
  readonly cluster: ClusterApi;
  readonly oneOperation: OneOperation;
  readonly listVolumes: () => Promise<MergedList<VolumeView>>;
}

export function groupControllerService({ cluster }: { readonly cluster: ClusterApi }): GrpcService {
  const listVolumes = sharedReading(() => cluster.listVolumes());
  return {
    protoFile: "csi.proto",
    service: "csi.v1.GroupController",
    calls: {
      ...groupCalls({ cluster, listVolumes, oneOperation: oneOperationAtATime() }),
      async GroupControllerGetCapabilities(
        _request: GroupControllerGetCapabilitiesRequest,
      ): Promise<GroupControllerGetCapabilitiesResponse> {
        return { capabilities: [{ rpc: { type: "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT" } }] };
      },
    },
  };
}

export function groupCalls(parts: GroupParts) {
  const { cluster, oneOperation } = parts;
  return {
    async CreateVolumeGroupSnapshot(
      request: CreateVolumeGroupSnapshotRequest,
      signal: AbortSignal,
    ): Promise<CreateVolumeGroupSnapshotResponse> {
      const volumes = checkedVolumes(request);
      const name = agentNameOf(request.name);
      const snapshots = await oneOperation.run(`group snapshot ${name}`, async () => {
        await requireSameVolumes(parts, name, volumes);
        signal.throwIfAborted();
        return (await cluster.putGroupSnapshot(csiGroup, name, { volumes })).snapshots;
      });
      return { groupSnapshot: messageOf(name, snapshots) };
    },

    async DeleteVolumeGroupSnapshot(
      request: DeleteVolumeGroupSnapshotRequest,
      signal: AbortSignal,
    ): Promise<DeleteVolumeGroupSnapshotResponse> {
      const name = nameIn(request.groupSnapshotId);
      // No group snapshot of ours ever had such a handle, so what is to be deleted is gone.
      if (name === undefined) return {};
      await oneOperation.run(`group snapshot ${name}`, async () => {
        const members = await membersOf(parts, name);
        requireSameMembers(request.snapshotIds, name, members);
        for (const { volume } of members) {
          signal.throwIfAborted();
          await cluster.removeSnapshot(volume, name);
        }
      });
      return {};
    },

    async GetVolumeGroupSnapshot(request: GetVolumeGroupSnapshotRequest): Promise<GetVolumeGroupSnapshotResponse> {
      const name = nameIn(request.groupSnapshotId);
      const members = name === undefined ? [] : await membersOf(parts, name);
      if (name === undefined || members.length === 0) {
        throw new CsiError("NOT_FOUND", `group snapshot ${request.groupSnapshotId} does not exist`);
      }
      requireSameMembers(request.snapshotIds, name, members);
      return { groupSnapshot: messageOf(name, members) };
    },
  };
}

/** As many as the agents snapshot at once. */
const volumesMax = 256;

function checkedVolumes({ name, sourceVolumeIds, parameters }: CreateVolumeGroupSnapshotRequest): string[] {
  if (name === "") throw invalid("name is missing");
  const volumes = [...new Set(sourceVolumeIds)];
  if (volumes.length === 0) throw invalid("source_volume_ids is empty");
  if (volumes.length > volumesMax) {
    throw invalid(`source_volume_ids has ${volumes.length} volumes; at most ${volumesMax} are snapshotted at once`);
  }
  checkSnapshotParameters(parameters);
  const unknown = volumes.find((volume) => !isVolumeHandle(volume));
  if (unknown !== undefined) throw new CsiError("NOT_FOUND", `volume ${unknown} does not exist`);
  return volumes;
}

/** The name in a handle of ours; those of consistency groups are nobody's business here. Throws INVALID_ARGUMENT for none at all. */
function nameIn(groupSnapshotId: string): string | undefined {
  if (groupSnapshotId === "") throw invalid("group_snapshot_id is missing");
  const handle = parseGroupSnapshotHandle(groupSnapshotId);
  return handle?.group === csiGroup ? handle.name : undefined;
}

/** Throws ALREADY_EXISTS when the name stands for a group snapshot of other volumes. Of a part of them it is found out by the agents. */
async function requireSameVolumes(parts: GroupParts, name: string, volumes: readonly string[]): Promise<void> {
  const hasIt = ({ snapshots }: VolumeView) => snapshots.some((one) => one.name === name && !one.released);
  const { items } = await parts.listVolumes();
  const others = items.filter((volume) => !volumes.includes(volume.name) && hasIt(volume));
  if (others.length === 0) return;
  const names = others.map((volume) => volume.name).join(", ");
  throw new CsiError("ALREADY_EXISTS", `snapshot ${name} exists already, of ${names} as well`);
}

/** The parts of a group snapshot that are there. An agent that does not answer may have more of them, so all have to. */
async function membersOf({ cluster, listVolumes }: GroupParts, name: string): Promise<SnapshotView[]> {
  const volumes = await listVolumes();
  requireAll(await callRoll(cluster), volumes);
  return volumes.items.flatMap(snapshotsOf).filter((snapshot) => snapshot.name === name && isOfCsiGroup(snapshot));
}

/**
 * Throws INVALID_ARGUMENT when the caller thinks of other snapshots. Some of those it names may be gone: a deletion that broke
 * off is repeated so.
 */
function requireSameMembers(snapshotIds: readonly string[], name: string, members: readonly SnapshotView[]): void {
  if (snapshotIds.length === 0) return;
  const ids = members.map((member) => snapshotMessage(member).snapshotId);
  const unnamed = ids.filter((id) => !snapshotIds.includes(id));
  if (unnamed.length > 0) throw invalid(`snapshot_ids lacks ${unnamed.join(", ")}, parts of the group snapshot`);
  const foreign = snapshotIds.filter((id) => !isNamed(parseSnapshotHandle(id), name));
  if (foreign.length > 0) throw invalid(`snapshot_ids names ${foreign.join(", ")}, not of the group snapshot`);
}

function isNamed(handle: SnapshotHandle | undefined, name: string): boolean {
  return handle?.kind === "snapshot" && handle.snapshot === name;
}

function messageOf(name: string, members: readonly SnapshotView[]): VolumeGroupSnapshot {
  const snapshots = members.map(snapshotMessage);
  const [first] = snapshots;
  if (first === undefined) throw new CsiError("NOT_FOUND", `group snapshot ${name} has no parts any more`);
  return {
    groupSnapshotId: renderGroupSnapshotHandle({ group: csiGroup, name }),
    snapshots,
    creationTime: first.creationTime,
    readyToUse: snapshots.every(({ readyToUse }) => readyToUse),
  };
}

function invalid(message: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", message);
}
