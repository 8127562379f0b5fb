// csi.v1.Node: brings the volumes of this node's agent to the pods on it. Nothing is kept in memory, so the process may be killed at any
// moment; what is mounted goes on without it. What a call has begun it finishes, even if its caller has gone: half a step helps nobody,
// and the next call finds it done.
import { errnoOf } from "../base/system-error.ts";
import { HostError } from "../host/host-error.ts";
import { expand } from "./node-expand.ts";
import type {
  NodeExpandVolumeRequest,
  NodeExpandVolumeResponse,
  NodeGetCapabilitiesResponse,
  NodeGetInfoResponse,
  NodeGetVolumeStatsRequest,
  NodeGetVolumeStatsResponse,
  NodePublishVolumeRequest,
  NodeStageVolumeRequest,
  NodeUnpublishVolumeRequest,
  NodeUnstageVolumeRequest,
} from "./node-messages.ts";
import type { NodeParts } from "./node-parts.ts";
import { publish, unpublish } from "./node-publish.ts";
import { placeIn, required, volumeNamed, wantedBy } from "./node-requests.ts";
import { stage, unstage } from "./node-stage.ts";
import { statsOf } from "./node-stats.ts";
import { oneOperationAtATime } from "./one-operation.ts";
import { CsiError } from "./status.ts";
import { topologyOf } from "./topology.ts";

const capabilities = ["STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "EXPAND_VOLUME", "SINGLE_NODE_MULTI_WRITER"] as const;

/** The service and its calls, for openGrpcServer. */
export function nodeService(parts: NodeParts) {
  return {
    protoFile: "csi.proto" as const,
    service: "csi.v1.Node",
    calls: {
      ...usingCalls(parts),
      async NodeGetVolumeStats(request: NodeGetVolumeStatsRequest): Promise<NodeGetVolumeStatsResponse> {
        const volumeId = required("volume_id", request.volumeId);
        const path = required("volume_path", request.volumePath);
        const volume = volumeNamed(volumeId);
        return { usage: await told(parts, volumeId, () => statsOf(parts, { volume, path })) };
      },
      async NodeGetCapabilities(): Promise<NodeGetCapabilitiesResponse> {
        return { capabilities: capabilities.map((type) => ({ rpc: { type } })) };
      },
      async NodeGetInfo(): Promise<NodeGetInfoResponse> {
        return { nodeId: parts.node, maxVolumesPerNode: 0, accessibleTopology: topologyOf(parts.node) };
      },
    },
  };
}

type Nothing = Readonly<Record<string, never>>;

/** The calls that change what there is of a volume on this node: one at a time for each. */
function usingCalls(parts: NodeParts) {
  const { host } = parts;
  const operations = oneOperationAtATime();
  const alone = <T>(volumeId: string, work: () => Promise<T>): Promise<T> =>
    operations.run(`volume ${volumeId}`, () => told(parts, volumeId, work));
  return {
    async NodeStageVolume(request: NodeStageVolumeRequest): Promise<Nothing> {
      const volumeId = required("volume_id", request.volumeId);
      const path = placeIn(host, "staging_target_path", request.stagingTargetPath);
      const wanted = wantedBy(request.volumeCapability);
      const volume = volumeNamed(volumeId);
      await alone(volumeId, () => stage(parts, { volume, path, wanted }));
      return {};
    },
    async NodeUnstageVolume(request: NodeUnstageVolumeRequest): Promise<Nothing> {
      const volumeId = required("volume_id", request.volumeId);
      const path = placeIn(host, "staging_target_path", request.stagingTargetPath);
      await alone(volumeId, () => unstage(parts, { volumeId, path }));
      return {};
    },
    async NodePublishVolume(request: NodePublishVolumeRequest): Promise<Nothing> {
      const volumeId = required("volume_id", request.volumeId);
      const target = placeIn(host, "target_path", request.targetPath);
      const asked = wantedBy(request.volumeCapability);
      if (request.stagingTargetPath === "") {
        // So the specification wants it, unlike for every other field.
        throw new CsiError("FAILED_PRECONDITION", "staging_target_path is missing: the volume is staged first");
      }
      const stagingPath = placeIn(host, "staging_target_path", request.stagingTargetPath);
      const volume = volumeNamed(volumeId);
      const wanted = { ...asked, isReadOnly: asked.isReadOnly || request.readonly };
      const context = request.volumeContext;
      await alone(volumeId, () => publish(parts, { volume, stagingPath, target, wanted, context }));
      return {};
    },
    async NodeUnpublishVolume(request: NodeUnpublishVolumeRequest): Promise<Nothing> {
      const volumeId = required("volume_id", request.volumeId);
      const target = placeIn(host, "target_path", request.targetPath);
      await alone(volumeId, () => unpublish(parts, { volumeId, target }));
      return {};
    },
    async NodeExpandVolume(request: NodeExpandVolumeRequest): Promise<NodeExpandVolumeResponse> {
      const { stagingTargetPath, volumeCapability, capacityRange } = request;
      const volumeId = required("volume_id", request.volumeId);
      const volumePath = required("volume_path", request.volumePath);
      const volume = volumeNamed(volumeId);
      const isBlock = volumeCapability === null ? undefined : wantedBy(volumeCapability).kind === "block";
      const paths = [stagingTargetPath, volumePath].filter((path) => host.reaches(path));
      const requiredBytes = capacityRange?.requiredBytes ?? 0;
      const capacityBytes = await alone(volumeId, () => expand(parts, { volume, paths, requiredBytes, isBlock }));
      return { capacityBytes };
    },
  };
}

/** What failed on the node is told to whoever asked, with what its tools said: a user reads it in the events of the pod. */
async function told<T>({ node }: NodeParts, volumeId: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof HostError) && errnoOf(error) === undefined) throw error;
    throw new CsiError("INTERNAL", `volume ${volumeId} on node ${node}`, { cause: error });
  }
}
