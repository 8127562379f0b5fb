// CreateVolume: an empty volume where Kubernetes wants it, or a clone on the home of what it is made of. A clone of a migrated
// volume waits while a transfer runs: the request is durable at its home, and the caller is told how far the transfer is.
import { metadataKey } from "../api/names.ts";
import { unreachable } from "../base/assert.ts";
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import { isVolumeHandle, parseSnapshotHandle } from "../domain/handles.ts";
import { renderBytes } from "../domain/quantity.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { CloneSpec, CloneView, Metadata, MigratedVolumeView, VolumeSpec, VolumeView } from "../wire/schemas.ts";
import { agentNameOf } from "./agent-names.ts";
import type { CapacityRange, CreateVolumeRequest, TopologyRequirement, VolumeContentSource } from "./csi-messages.ts";
import { checkVolumeParameters, fileSystemParameter, metadataOf, refuseMutableParameters } from "./parameters.ts";
import { placeVolume } from "./placement.ts";
import { chooseSize, emptyFloor, isWithin, type SizeFloor, sourceFloor } from "./sizes.ts";
import { CsiError } from "./status.ts";
import { callRoll, nodeOf, orNothing } from "./storage-cluster.ts";
import { mayLieOn } from "./topology.ts";
import { useOf, type VolumeUse } from "./volume-capabilities.ts";

type LocalSource = NonNullable<VolumeSpec["from"]>;

/** What a volume is made of. */
export type VolumeSource =
  | { readonly kind: "empty"; readonly floor: SizeFloor }
  /** A volume of this cluster, or a snapshot of one. */
  | { readonly kind: "local"; readonly from: LocalSource }
  /** A point of a migrated volume. */
  | { readonly kind: "point"; readonly migratedVolume: string; readonly point: CloneSpec["point"] };

/** What was asked for, checked as far as that is possible without asking anybody. */
export interface VolumeWish {
  /** At the agents. */
  readonly name: string;
  readonly range: CapacityRange | null;
  readonly use: VolumeUse;
  readonly metadata: Metadata;
  readonly source: VolumeSource;
  readonly requirement: TopologyRequirement | null;
}

/** Throws what the specification asks for when something is missing, wrong, or not supported; asks nobody. */
export function readWish(request: CreateVolumeRequest): VolumeWish {
  if (request.name === "") throw new CsiError("INVALID_ARGUMENT", "name is missing");
  const use = useOf(request.volumeCapabilities);
  checkVolumeParameters(request.parameters);
  refuseMutableParameters(request.mutableParameters);
  const source = sourceOf(request.volumeContentSource) ?? { kind: "empty", floor: emptyFloor(use) };
  // A range that cannot be met at all is told before anything is looked into.
  chooseSize(request.capacityRange, source.kind === "empty" ? source.floor : sourceFloor(0));
  return {
    name: agentNameOf(request.name),
    range: request.capacityRange,
    use,
    metadata: metadataOf(request.parameters, use),
    source,
    requirement: request.accessibilityRequirements,
  };
}

function sourceOf(source: VolumeContentSource | null): VolumeSource | undefined {
  if (source === null) return undefined;
  if (source.volume !== undefined) {
    const { volumeId } = source.volume;
    if (!isVolumeHandle(volumeId)) throw noSuch(`volume ${volumeId}`);
    return { kind: "local", from: { volume: volumeId } };
  }
  if (source.snapshot === undefined) {
    throw new CsiError("INVALID_ARGUMENT", "volume_content_source names neither a snapshot nor a volume");
  }
  const handle = parseSnapshotHandle(source.snapshot.snapshotId);
  if (handle === undefined) throw noSuch(`snapshot ${source.snapshot.snapshotId}`);
  if (handle.kind === "point") return handle;
  return { kind: "local", from: { volume: handle.volume, snapshot: handle.snapshot } };
}

/**
 * Makes the volume, or finds it. Safe to repeat, also after a crash at any step: names follow from the caller's, and an agent
 * makes a thing of one name once. It stops between its steps when `signal` aborts.
 */
export async function createVolume(cluster: ClusterApi, wish: VolumeWish, signal: AbortSignal): Promise<VolumeView> {
  const making = { cluster, wish, signal, present: await lookUp(cluster, wish.name) };
  if (making.present !== undefined) checkSame(wish, making.present);
  signal.throwIfAborted();
  switch (wish.source.kind) {
    case "empty":
      return makeEmpty(making, wish.source.floor);
    case "local":
      return cloneLocal(making, wish.source.from);
    case "point":
      return clonePoint(making, wish.source);
    default:
      return unreachable(wish.source);
  }
}

interface Making {
  readonly cluster: ClusterApi;
  readonly wish: VolumeWish;
  readonly signal: AbortSignal;
  readonly present: VolumeView | undefined;
}

// ---- what is there already -----------------------------------------------------------------------------------------------

async function lookUp(cluster: ClusterApi, name: string): Promise<VolumeView | undefined> {
  try {
    return await orNothing(cluster.getVolume(name));
  } catch (error) {
    // None of those that answer has it. Whether the others may have it, whoever makes it finds out.
    if (codeOf(error) === "Unreachable") return undefined;
    throw error;
  }
}

/** Throws ALREADY_EXISTS when the name stands for something else. */
function checkSame({ name, range, use, source }: VolumeWish, present: VolumeView): void {
  const { [metadataKey.volumeMode]: mode = use.mode, [metadataKey.fileSystem]: found } = present.metadata;
  if (mode !== use.mode) throw taken(name, `in mode ${mode}`);
  if (found !== undefined && isOther(use, found)) throw taken(name, `with ${found}`);
  if (!isMadeOf(present, source)) throw taken(name, "made of something else");
  // A clone of a point may have to grow yet.
  const most = source.kind === "point" && range !== null ? { ...range, requiredBytes: 0 } : range;
  if (!isWithin(most, present.sizeBytes)) throw taken(name, `with ${present.sizeBytes} bytes`);
}

function isMadeOf({ from, lineage }: VolumeView, source: VolumeSource): boolean {
  switch (source.kind) {
    case "empty":
      return from === undefined && lineage === null;
    case "local":
      return from?.volume === source.from.volume && from.snapshot === source.from.snapshot;
    case "point":
      // Of which volume and point, its home knows, and refuses another.
      return from === undefined && lineage !== null;
    default:
      return unreachable(source);
  }
}

/** A volume that is there, but not where it has to be, is another one as well. */
async function inPlace({ cluster, wish }: Making, present: VolumeView): Promise<VolumeView> {
  const node = nodeOf(await callRoll(cluster), present.home);
  if (mayLieOn(wish.requirement, node)) return present;
  throw taken(wish.name, `on node ${node}`);
}

// ---- empty volumes, clones of this cluster's volumes ----------------------------------------------------------------------

async function makeEmpty(making: Making, floor: SizeFloor): Promise<VolumeView> {
  const { cluster, wish, signal, present } = making;
  if (present !== undefined) return inPlace(making, present);
  const { name, metadata, requirement } = wish;
  const spec = { sizeBytes: chooseSize(wish.range, floor), metadata };
  const place = placeVolume(requirement, await callRoll(cluster));
  if (place.kind === "nowhere") throw nowhere(requirement);
  if (place.kind === "silent") {
    const nodes = place.nodes.join(", ");
    const text = `volume ${name} waits for the agent of ${nodes}, which does not answer; bring it back or, if it will not come back: longshore node forget`;
    throw new LongshoreError("Unreachable", text);
  }
  const full: string[] = [];
  for (const agentId of place.agentIds) {
    signal.throwIfAborted();
    try {
      // It is refused unless no other agent has one of this name, nor may have one.
      return await cluster.putVolumeAt(agentId, name, spec);
    } catch (error) {
      // Nothing was made there. After any other failure something may have been, and no other agent must make it again.
      if (codeOf(error) !== "DiskFull") throw error;
      full.push(describe(error));
    }
  }
  throw new LongshoreError("DiskFull", `no node has room for volume ${name}: ${full.join("; ")}`);
}

/** Clones lie where their source does: if that answers, no agent that does not can have it. */
async function cloneLocal(making: Making, from: LocalSource): Promise<VolumeView> {
  const { cluster, wish, signal, present } = making;
  if (present !== undefined) return inPlace(making, present);
  const source = await cluster.getVolume(from.volume);
  const metadata = withFileSystemOf(source.metadata, wish, `volume ${from.volume}`);
  const sizeBytes = chooseSize(wish.range, sourceFloor(sizeOf(source, from)));
  requirePlace(wish, nodeOf(await callRoll(cluster), source.home), `volume ${from.volume}`);
  signal.throwIfAborted();
  return cluster.putVolume(wish.name, { sizeBytes, metadata, from });
}

function sizeOf({ name, sizeBytes, snapshots }: VolumeView, from: LocalSource): number {
  if (from.snapshot === undefined) return sizeBytes;
  const snapshot = snapshots.find((one) => one.name === from.snapshot);
  if (snapshot === undefined || snapshot.released) throw noSuch(`snapshot ${from.snapshot} of volume ${name}`);
  return snapshot.sizeBytes;
}

// ---- clones of migrated volumes --------------------------------------------------------------------------------------------

type PointSource = Extract<VolumeSource, { kind: "point" }>;

async function clonePoint(making: Making, source: PointSource): Promise<VolumeView> {
  const { cluster, wish, signal, present } = making;
  const migrated = await orNothing(cluster.getMigratedVolume(source.migratedVolume));
  const { migratedVolume, point } = source;
  const origin = migrated?.metadata ?? present?.metadata ?? {};
  const metadata = withFileSystemOf(origin, wish, `migrated volume ${migratedVolume}`);
  if (present === undefined) await checkClonable(making, source, migrated);
  else await inPlace(making, present);
  signal.throwIfAborted();
  // Whoever is told that it is ready keeps it. One that nobody comes back for, as when the claim is deleted, goes by itself.
  const clone = await cluster.putClone(wish.name, { migratedVolume, point, metadata, expires: true });
  if (clone.state === "Waiting") throw new CsiError("ABORTED", waitingText(clone, migrated));
  const volume = await cluster.getVolume(wish.name);
  const sizeBytes = await sizeWithin(making, volume);
  return sizeBytes === volume.sizeBytes ? volume : cluster.putVolume(wish.name, { sizeBytes });
}

/** What would never be served is told at once, and no request is made of it. */
async function checkClonable(
  { cluster, wish }: Making,
  { migratedVolume, point }: PointSource,
  migrated: MigratedVolumeView | undefined,
): Promise<void> {
  if (migrated === undefined) throw noSuch(`migrated volume ${migratedVolume}`);
  const sizeBytes = knownSize(migrated, point);
  if (sizeBytes !== undefined) chooseSize(wish.range, sourceFloor(sizeBytes));
  requirePlace(wish, nodeOf(await callRoll(cluster), migrated.home), `migrated volume ${migratedVolume}`);
}

/** The size of the point that the clone will be of, as far as that is known; the newest may be on its way. */
function knownSize({ points, transfer }: MigratedVolumeView, point: CloneSpec["point"]): number | undefined {
  if (point === "latest") return (transfer?.to ?? points.at(-1))?.sizeBytes;
  return points.find(({ pointId, groupPoint }) => pointId === point || groupPoint === point)?.sizeBytes;
}

/** What the clone has to grow to. One that nobody has been told of, and that turns out too large, is removed again. */
async function sizeWithin({ cluster, wish, present }: Making, volume: VolumeView): Promise<number> {
  try {
    return chooseSize(wish.range, sourceFloor(volume.sizeBytes));
  } catch (error) {
    if (present === undefined) await cluster.removeClone(wish.name);
    throw error;
  }
}

/** For the person who waits: the provisioner makes an event of it. */
function waitingText({ name, spec, requestedAt }: CloneView, migrated: MigratedVolumeView | undefined): string {
  const waits = `clone ${name} waits since ${requestedAt}`;
  const transfer = migrated?.transfer ?? undefined;
  if (transfer === undefined) return `${waits} for migrated volume ${spec.migratedVolume} to have a point in time`;
  const { job, since, to, bytesStored, bytesTotal } = transfer;
  const percent = bytesTotal === 0 ? 0 : Math.floor((100 * bytesStored) / bytesTotal);
  const stored = `${renderBytes(bytesStored)} of ${renderBytes(bytesTotal)} stored, ${percent} %, since ${since}`;
  const undecided = migrated?.state === "Undecided" ? "; its group home has not decided" : "";
  return `${waits}: migrated volume ${spec.migratedVolume} is frozen while job ${job} brings its content of ${to.sourceTime} (${stored})${undecided}`;
}

// ---- shared ----------------------------------------------------------------------------------------------------------------

function requirePlace({ name, requirement }: VolumeWish, node: string, source: string): void {
  if (mayLieOn(requirement, node)) return;
  const why = `${source} lies on node ${node}, and clones are made on the node of their source; let the pod go there, or take a class with volumeBindingMode Immediate`;
  throw new CsiError("RESOURCE_EXHAUSTED", `volume ${name} cannot be made on the nodes asked for: ${why}`);
}

/**
 * A clone has the file system that its source has. Throws INVALID_ARGUMENT when another one was named: Kubernetes would write that
 * into the PersistentVolume, and no node would mount it.
 */
function withFileSystemOf(source: Metadata, { name, use, metadata }: VolumeWish, what: string): Metadata {
  const found = source[metadataKey.fileSystem];
  if (use.mode === "Block" || found === undefined) return metadata;
  if (isOther(use, found)) {
    const advice = `use a StorageClass whose ${fileSystemParameter} is ${found}, or one without`;
    const text = `volume ${name} cannot be ${use.fileSystem}: ${what}, which it is made of, is ${found}; ${advice}`;
    throw new CsiError("INVALID_ARGUMENT", text);
  }
  return { ...metadata, [metadataKey.fileSystem]: found };
}

/** Whether another file system than the one that is there was named. */
function isOther(use: VolumeUse, found: string): boolean {
  return use.mode === "Filesystem" && use.isNamed && use.fileSystem !== found;
}

function nowhere(requirement: TopologyRequirement | null): CsiError {
  const wanted = (requirement?.requisite ?? []).map(({ segments }) => JSON.stringify(segments)).join(" or ");
  const advice =
    "label a node longshore.dev/storage=true and see that its agent runs (kubectl -n longshore-node get pods), or let the pod go to one";
  return new CsiError("RESOURCE_EXHAUSTED", `no agent keeps volumes on ${wanted || "any node"}; ${advice}`);
}

function taken(name: string, how: string): CsiError {
  return new CsiError(
    "ALREADY_EXISTS",
    `volume ${name} exists already, ${how}; a claim that is made anew gets another name`,
  );
}

function noSuch(what: string): CsiError {
  return new CsiError("NOT_FOUND", `${what} does not exist`);
}
