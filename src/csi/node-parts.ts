// What the node's service works with, and what this node has of a volume at a moment.
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Host } from "../host/host.ts";
import type { Device } from "../host/loop-devices.ts";
import type { Mounted } from "../host/mounts.ts";
import type { VolumeNote } from "../host/volume-notes.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import { CsiError } from "./status.ts";

export interface NodeParts {
  /** Of this node: it has the volumes that can be used here. */
  readonly agent: AgentApi;
  readonly host: Host;
  /** Its name in Kubernetes. */
  readonly node: string;
  readonly log: Log;
  readonly clock: Clock;
}

export interface StagedVolume {
  readonly note: VolumeNote;
  readonly device: Device;
}

/** `undefined` when nothing is attached for the volume, or nobody noted that. */
export async function stagedVolume({ host }: NodeParts, volume: string): Promise<StagedVolume | undefined> {
  const note = await host.readNote(volume);
  if (note === undefined) return undefined;
  const [device] = await host.devicesOf(note.image);
  return device === undefined ? undefined : { note, device };
}

/** What is mounted at a path is of no use: FAILED_PRECONDITION when it is something else, INTERNAL when it is broken. */
export function checkMounted(volume: string, { device }: { device: Device | undefined }, mounted: Mounted): void {
  const { path, type, source, broken } = mounted;
  if (device === undefined || mounted.device !== device.number) {
    const text = `${source} (${type}) is mounted at ${path}, which is not volume ${volume}; unmount it first`;
    throw new CsiError("FAILED_PRECONDITION", text);
  }
  if (broken === undefined) return;
  const text = `volume ${volume} is of no use where it is mounted, at ${path}: ${broken}; end the pods that use it`;
  throw new CsiError("INTERNAL", text);
}
