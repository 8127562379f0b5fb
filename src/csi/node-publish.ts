// A staged volume is shown where a pod wants it, and taken away from there again.
import { LongshoreError } from "../domain/errors.ts";
import { isVolumeHandle } from "../domain/handles.ts";
import type { Host } from "../host/host.ts";
import type { BindHow, Mounted } from "../host/mounts.ts";
import type { VolumeNote } from "../host/volume-notes.ts";
import { checkMounted, type NodeParts, type StagedVolume, stagedVolume } from "./node-parts.ts";
import type { Wanted } from "./node-requests.ts";
import { CsiError } from "./status.ts";

export interface PublishRequest {
  readonly volume: string;
  readonly stagingPath: string;
  readonly target: string;
  /** Read-only also when only this publication is to be. */
  readonly wanted: Wanted;
  readonly context: Readonly<Record<string, string>>;
}

/** Published already in the same way is success. */
export async function publish(parts: NodeParts, request: PublishRequest): Promise<void> {
  const { host } = parts;
  const { volume, target } = request;
  const staged = await stagedVolume(parts, volume);
  if (staged === undefined) throw await notStaged(parts, volume);
  const { source, how } = await sourceOf(parts, request, staged);
  const present = await host.mountAt(target);
  if (present !== undefined) checkPresent(request, { staged, how }, present);
  const others = await otherTargets(parts, request, staged);
  if (request.wanted.isForOne && others.length > 0) {
    const text = `volume ${volume} is published at ${others.join(", ")}, and its access mode allows one place only; end that pod, or use ReadWriteOnce`;
    throw new CsiError("FAILED_PRECONDITION", text);
  }
  await noteTargets(host, volume, { note: staged.note, targets: [...others, target] });
  if (present === undefined) await host.bind(source, target, how);
  await hint(parts, request);
}

async function noteTargets(
  host: Host,
  volume: string,
  { note, targets }: { note: VolumeNote; targets: readonly string[] },
): Promise<void> {
  const isNoted = note.targets.length === targets.length && targets.every((target) => note.targets.includes(target));
  if (!isNoted) await host.writeNote(volume, { ...note, targets });
}

/** Unpublished already is success. */
export async function unpublish(
  { host }: NodeParts,
  { volumeId, target }: { volumeId: string; target: string },
): Promise<void> {
  await host.unbind(target);
  if (!isVolumeHandle(volumeId)) return;
  const note = await host.readNote(volumeId);
  if (note === undefined || !note.targets.includes(target)) return;
  await host.writeNote(volumeId, { ...note, targets: note.targets.filter((one) => one !== target) });
}

async function notStaged({ agent }: NodeParts, volume: string): Promise<CsiError> {
  // One that does not exist is another failure, and throws its own.
  await agent.getVolume(volume);
  return new CsiError("FAILED_PRECONDITION", `volume ${volume} is not staged on this node; stage it first`);
}

interface Source {
  readonly source: string;
  readonly how: BindHow;
}

/** What is bound: the staged file system, which must really be mounted or the pod would write to the node's disk; or the device. */
async function sourceOf(
  { host }: NodeParts,
  { volume, stagingPath, wanted }: PublishRequest,
  { device }: StagedVolume,
): Promise<Source> {
  if (wanted.kind === "block") {
    return { source: device.path, how: { place: "file", isReadOnly: wanted.isReadOnly } };
  }
  const mounted = await host.mountAt(stagingPath);
  if (mounted === undefined || mounted.type === "block") {
    const text = `the file system of volume ${volume} is not mounted at ${stagingPath}; stage it first`;
    throw new CsiError("FAILED_PRECONDITION", text);
  }
  checkMounted(volume, { device }, mounted);
  return { source: stagingPath, how: { place: "folder", isReadOnly: wanted.isReadOnly || mounted.isReadOnly } };
}

function checkPresent(
  { volume, target, wanted }: PublishRequest,
  { staged, how }: { staged: StagedVolume; how: BindHow },
  present: Mounted,
): void {
  checkMounted(volume, staged, present);
  const isBlock = present.type === "block";
  if (isBlock === (wanted.kind === "block") && present.isReadOnly === how.isReadOnly) return;
  const what = isBlock ? "a block device" : "a file system";
  const purpose = present.isReadOnly ? "for reading only" : "for writing";
  const text = `volume ${volume} is published at ${target} otherwise than is asked for: as ${what}, ${purpose}; delete the pod, which is then made anew`;
  throw new CsiError("ALREADY_EXISTS", text);
}

/** Where else it is published: what was noted, and is still mounted. */
async function otherTargets(
  { host }: NodeParts,
  { target }: PublishRequest,
  { note, device }: StagedVolume,
): Promise<string[]> {
  const others: string[] = [];
  for (const other of note.targets) {
    if (other === target) continue;
    if ((await host.mountAt(other))?.device === device.number) others.push(other);
  }
  return others;
}

/** What the kubelet says of the pod, with podInfoOnMount in the CSIDriver. */
const podKeys = { namespace: "csi.storage.k8s.io/pod.namespace", name: "csi.storage.k8s.io/pod.name" } as const;
const affinityLengthMax = 253;
const hintMsMax = 5_000;

/** Volumes of one pod are to have one home in another cluster, for a pod there wants them together. Only a hint: nothing depends on it. */
async function hint(parts: NodeParts, { volume, context }: PublishRequest): Promise<void> {
  const [namespace, name] = [context[podKeys.namespace], context[podKeys.name]];
  if (!namespace || !name) return;
  const affinity = `${namespace}/${name}`.slice(0, affinityLengthMax);
  const over = new AbortController();
  const late = parts.clock.sleep(hintMsMax, over.signal).then(() => {
    throw new LongshoreError("Timeout", `the agent did not answer within ${hintMsMax} ms`);
  });
  try {
    await Promise.race([setAffinity(parts, volume, affinity), late]);
  } catch (error) {
    parts.log.warn({ volume, affinity, err: error }, "affinity not set");
  } finally {
    over.abort();
  }
}

async function setAffinity({ agent }: NodeParts, volume: string, affinity: string): Promise<void> {
  const view = await agent.getVolume(volume);
  if (view.affinity === affinity) return;
  await agent.putVolume(volume, { sizeBytes: view.sizeBytes, affinity }, { ifMatch: view.revision });
}
