// A node with its agent and its kubelet, in memory: volumes, and the calls of csi.v1.Node as a kubelet makes them for its pods.
import { type Log, openLog } from "../../src/base/log.ts";
import type { AccessMode, VolumeCapability } from "../../src/csi/csi-messages.ts";
import { nodeService } from "../../src/csi/node.ts";
import type {
  NodeExpandVolumeRequest,
  NodePublishVolumeRequest,
  NodeStageVolumeRequest,
} from "../../src/csi/node-messages.ts";
import type { Precondition } from "../../src/wire/agent-api.ts";
import type { VolumeSpec, VolumeView } from "../../src/wire/schemas.ts";
import { CrashPoint } from "./crash-point.ts";
import { FakeAgent } from "./fake-agent.ts";
import { FakeClock } from "./fake-clock.ts";
import { crashingHost, FakeHost, type FakeHostOptions } from "./fake-host.ts";

export type NodeService = ReturnType<typeof nodeService>;

/** Remembers what was put, and may be out of reach. */
class NodeAgent extends FakeAgent {
  readonly puts: [name: string, spec: VolumeSpec, precondition: Precondition | undefined][] = [];
  /** What every call fails with. */
  failure: Error | undefined;

  override async getVolume(name: string): Promise<VolumeView> {
    if (this.failure !== undefined) throw this.failure;
    return super.getVolume(name);
  }

  override async putVolume(name: string, spec: VolumeSpec, precondition?: Precondition): Promise<VolumeView> {
    if (this.failure !== undefined) throw this.failure;
    this.puts.push([name, spec, precondition]);
    return super.putVolume(name, spec, precondition);
  }
}

export class NodeWorld {
  readonly host: FakeHost;
  readonly agent = new NodeAgent();
  readonly clock = new FakeClock();
  /** The lines of the log. */
  readonly lines: Record<string, unknown>[] = [];
  readonly #log: Log;

  constructor(options: FakeHostOptions = {}) {
    this.host = new FakeHost(options);
    const write = (line: string) => void this.lines.push(JSON.parse(line));
    this.#log = openLog({ name: "csi", level: "debug" }, { write });
  }

  /** A process on this node, which may die at one of its effects. */
  start(crash: CrashPoint = new CrashPoint(), node = "node-1"): NodeService {
    const { agent, clock } = this;
    return nodeService({ agent, host: crashingHost(this.host, crash), node, log: this.#log, clock });
  }

  /** A volume of the agent's, with its image. Returns the image's path. */
  async makeVolume(name: string, sizeBytes = 2 ** 30): Promise<string> {
    const { path } = await this.agent.putVolume(name, { sizeBytes });
    this.agent.puts.length = 0;
    this.host.makeImage(path, sizeBytes);
    return path;
  }

  async growVolume(name: string, sizeBytes: number): Promise<void> {
    const { path } = await this.agent.putVolume(name, { sizeBytes });
    this.host.growImage(path, sizeBytes);
  }
}

export const stagingOf = (volume: string) => `/kubelet/plugins/csi.longshore.dev/${volume}/globalmount`;
export const targetOf = (volume: string, pod = "pod-1") =>
  `/kubelet/pods/${pod}/volumes/kubernetes.io~csi/${volume}/mount`;

export interface Use {
  readonly fsType?: string;
  readonly isBlock?: boolean;
  readonly mode?: AccessMode;
  readonly flags?: readonly string[];
}

export function capabilityOf(use: Use = {}): VolumeCapability {
  const { fsType = "", isBlock = false, mode = "SINGLE_NODE_WRITER", flags = [] } = use;
  const accessMode = { mode };
  if (isBlock) return { accessMode, accessType: "block", block: {} };
  return { accessMode, accessType: "mount", mount: { fsType, mountFlags: flags, volumeMountGroup: "" } };
}

export function stageRequest(volume: string, use: Use = {}): NodeStageVolumeRequest {
  return { volumeId: volume, stagingTargetPath: stagingOf(volume), volumeCapability: capabilityOf(use) };
}

export function publishRequest(
  volume: string,
  use: Use & { readonly pod?: string; readonly isReadOnly?: boolean; readonly context?: Record<string, string> } = {},
): NodePublishVolumeRequest {
  return {
    volumeId: volume,
    stagingTargetPath: stagingOf(volume),
    targetPath: targetOf(volume, use.pod),
    volumeCapability: capabilityOf(use),
    readonly: use.isReadOnly ?? false,
    volumeContext: use.context ?? {},
  };
}

export function unpublishRequest(volume: string, pod?: string) {
  return { volumeId: volume, targetPath: targetOf(volume, pod) };
}

export function unstageRequest(volume: string) {
  return { volumeId: volume, stagingTargetPath: stagingOf(volume) };
}

export function expandRequest(volume: string, requiredBytes: number, use: Use = {}): NodeExpandVolumeRequest {
  return {
    volumeId: volume,
    volumePath: targetOf(volume),
    stagingTargetPath: stagingOf(volume),
    capacityRange: { requiredBytes },
    volumeCapability: capabilityOf(use),
  };
}
