// The SnapshotMetadata service: which ranges of a snapshot are allocated, and which differ from an older one, so that backup tools read
// only those. The agent works it out page by page; nothing of it is kept here.
import { parseSnapshotHandle } from "../domain/handles.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { SnapshotView } from "../wire/schemas.ts";
import type { GetMetadataAllocatedRequest, GetMetadataDeltaRequest, SnapshotMetadataResponse } from "./csi-messages.ts";
import type { GrpcService } from "./grpc-server.ts";
import { snapshotsOf } from "./snapshot-messages.ts";
import { CsiError } from "./status.ts";
import { orNothing } from "./storage-cluster.ts";

/** Ranges in one answer: as many as the agent gives at once, or fewer where the caller wants it. */
const rangesMax = 4096;

export function snapshotMetadataService({ cluster }: { readonly cluster: ClusterApi }): GrpcService {
  return {
    protoFile: "snapshot-metadata.proto",
    service: "csi.v1.SnapshotMetadata",
    calls: metadataCalls(cluster),
  };
}

export function metadataCalls(cluster: ClusterApi) {
  return {
    async *GetMetadataAllocated(request: GetMetadataAllocatedRequest, signal: AbortSignal) {
      checkPaging(request);
      const snapshot = await snapshotOf(cluster, request.snapshotId, "snapshot_id");
      const { startingOffset, maxResults } = request;
      yield* rangesOf(cluster, { snapshot, startingOffset, maxResults }, signal);
    },

    async *GetMetadataDelta(request: GetMetadataDeltaRequest, signal: AbortSignal) {
      checkPaging(request);
      const base = await snapshotOf(cluster, request.baseSnapshotId, "base_snapshot_id");
      const snapshot = await snapshotOf(cluster, request.targetSnapshotId, "target_snapshot_id");
      checkPair(base, snapshot);
      const { startingOffset, maxResults } = request;
      yield* rangesOf(cluster, { snapshot, base: base.name, startingOffset, maxResults }, signal);
    },
  };
}

interface Wanted {
  readonly snapshot: SnapshotView;
  readonly base?: string;
  readonly startingOffset: number;
  readonly maxResults: number;
}

/** At least one answer, so that the size is told of an empty snapshot as well. */
async function* rangesOf(
  cluster: ClusterApi,
  { snapshot, base, startingOffset, maxResults }: Wanted,
  signal: AbortSignal,
): AsyncGenerator<SnapshotMetadataResponse> {
  if (startingOffset > snapshot.sizeBytes) {
    const text = `starting_offset ${startingOffset} is past the end of the snapshot, at ${snapshot.sizeBytes} bytes`;
    throw new CsiError("OUT_OF_RANGE", text);
  }
  const max = maxResults === 0 ? rangesMax : Math.min(maxResults, rangesMax);
  let from: number | null = startingOffset;
  while (from !== null) {
    signal.throwIfAborted();
    const query = { from, max, ...(base !== undefined && { base }) };
    const page = await cluster.listExtents(snapshot.volume, snapshot.name, query);
    yield {
      blockMetadataType: "VARIABLE_LENGTH",
      volumeCapacityBytes: page.sizeBytes,
      blockMetadata: page.extents.map(({ offset, length }) => ({ byteOffset: offset, sizeBytes: length })),
    };
    from = page.next;
  }
}

function checkPaging({ startingOffset, maxResults }: Pick<Wanted, "startingOffset" | "maxResults">): void {
  if (startingOffset < 0) throw invalid(`starting_offset is ${startingOffset}; it cannot be negative`);
  if (maxResults < 0) throw invalid(`max_results is ${maxResults}; it cannot be negative`);
}

/** Throws INVALID_ARGUMENT for no handle, NOT_FOUND for one of nothing, FAILED_PRECONDITION for what cannot be looked into. */
async function snapshotOf(cluster: ClusterApi, snapshotId: string, field: string): Promise<SnapshotView> {
  if (snapshotId === "") throw invalid(`${field} is missing`);
  const handle = parseSnapshotHandle(snapshotId);
  if (handle === undefined) throw noSuch(snapshotId);
  if (handle.kind === "point") {
    const text = `${field}: ${snapshotId} is a point of a migrated volume; make a volume of it, and snapshot that`;
    throw new CsiError("FAILED_PRECONDITION", text);
  }
  const volume = await orNothing(cluster.getVolume(handle.volume));
  const snapshot = volume && snapshotsOf(volume).find(({ name }) => name === handle.snapshot);
  if (snapshot === undefined) throw noSuch(snapshotId);
  if (snapshot.state === "sealed") return snapshot;
  throw new CsiError("FAILED_PRECONDITION", `${field}: the file of snapshot ${snapshotId} is lost; take a new one`);
}

function checkPair(base: SnapshotView, target: SnapshotView): void {
  if (base.volume !== target.volume) {
    throw invalid(`base_snapshot_id is of volume ${base.volume}, target_snapshot_id of volume ${target.volume}`);
  }
  if (base.generation <= target.generation) return;
  throw invalid(`base_snapshot_id ${base.name} is newer than target_snapshot_id ${target.name}`);
}

function noSuch(snapshotId: string): CsiError {
  return new CsiError("NOT_FOUND", `snapshot ${snapshotId} does not exist`);
}

function invalid(message: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", message);
}
