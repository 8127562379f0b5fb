// The names of what the operator makes. Each follows from what it is for, so that asking twice makes one, and "already
// exists" means "mine".
import { hash } from "node:crypto";
import type { PointHandle } from "./handles.ts";

/** Kubernetes takes longer names, but labels, and people, do not. */
const nameLengthMax = 63;

/** How many hexadecimal characters keep a shortened name apart from others: 40 bits. */
const digestLength = 10;

/** How much of a point id tells the points of one volume and generation apart. */
const pointLength = 6;

const scheduledName = /^auto-(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)\.(\d{3})z$/;
const demandPrefix = "demand-";
const clonePrefix = "clone-";
const cloneName = /^clone-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The name of a volume's snapshot that is due at `dueMs`: `auto-20260301t120000.000z`. Sorts by time. */
export function snapshotNameAt(dueMs: number): string {
  return `auto-${new Date(dueMs).toISOString().replace(/[-:]/g, "").toLowerCase()}`;
}

/** The due time that a snapshot of {@link snapshotNameAt} was made for; `undefined` for other snapshots. */
export function dueOfSnapshot(name: string): number | undefined {
  const match = scheduledName.exec(name);
  if (match === null) return undefined;
  const [, year, month, day, hour, minute, second, millisecond] = match;
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${millisecond}Z`);
}

/** The name of the snapshot taken for one MigrationJob of a user. Its UID is in it: a job made anew takes another one. */
export function demandSnapshotName(jobUid: string): string {
  return `${demandPrefix}${jobUid}`;
}

/**
 * The agents' name of the snapshot that is there while a volume is cloned as it is now. It has the clone's UID in it, so nobody
 * else's is called so; it is neither a scheduled nor a user's, and goes with the end of the cloning, whatever that is.
 */
export function cloneSnapshotName(cloneUid: string): string {
  return `${clonePrefix}${cloneUid}`;
}

/** Whether a snapshot is there only while its volume is being cloned. */
export function isCloneSnapshot(name: string): boolean {
  return cloneName.test(name);
}

/** Whether a snapshot was taken for a user's MigrationJob. */
export function isDemandSnapshot(name: string): boolean {
  return name.startsWith(demandPrefix);
}

/**
 * The name of the job that brings one point of a volume to a location. The generation in it is for people; the point id
 * tells two points of one number apart, as there are when an agent was restored from an old disk.
 */
export function jobNameOf(job: { volume: string; location: string; generation: number; pointId: string }): string {
  const { volume, location, generation, pointId } = job;
  return shortName([volume, location, `g${generation}-${pointId.slice(-pointLength)}`]);
}

/** The name of the job that brings one point of a consistency group to a location. */
export function groupJobNameOf(job: { group: GroupId; location: string; groupPoint: string }): string {
  const { group, location, groupPoint } = job;
  return shortName([group.namespace, group.name, location, `p${groupPoint.slice(-pointLength)}`]);
}

/** The agent's name for a job: a job made anew under a name is another one. For each volume of a group, `.NUMBER` may follow. */
export function agentJobName({ metadata }: { readonly metadata: { readonly name: string; readonly uid: string } }) {
  return `${metadata.name}.${metadata.uid}`;
}

/** The MigrationJob that an agent's job was made for; `undefined` for jobs that others made. */
export function keyOfAgentJob(name: string): { readonly name: string; readonly uid: string } | undefined {
  const [, job, uid] = /^(.+)\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.\d+)?$/.exec(name) ?? [];
  return job === undefined || uid === undefined ? undefined : { name: job, uid };
}

/** The claims of one namespace that carry the same label. */
export interface GroupId {
  readonly namespace: string;
  readonly name: string;
}

/** The agents' limit for names. */
const agentNameLengthMax = 120;
const agentName = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;

/**
 * The agents' name of a consistency group: `shop.orders`. Labels may be written in ways that agents do not take; of such a one a digest is added,
 * after two dots, which no other name has there: namespaces have no dots, and labels do not begin with one.
 */
export function groupNameOf({ namespace, name }: GroupId): string {
  const plain = `${namespace}.${name}`;
  if (plain.length <= agentNameLengthMax && agentName.test(name)) return plain;
  const digest = hash("sha256", name, "hex").slice(0, digestLength);
  const head = `${namespace}..${name.toLowerCase().replace(/[^a-z0-9.-]/g, "-")}`;
  return `${head.slice(0, agentNameLengthMax - digestLength - 1)}-${digest}`;
}

const claimPrefix = "pvc-";

/** The name of the volume, or of the clone, that csi-provisioner asks for on behalf of a claim; it stays when the claim goes. */
export function volumeNameOfClaim(claimUid: string): string {
  return claimPrefix + claimUid;
}

/** The UID of the claim that a volume or a clone of {@link volumeNameOfClaim} was asked for; `undefined` for others. */
export function claimOfVolumeName(name: string): string | undefined {
  return name.startsWith(claimPrefix) ? name.slice(claimPrefix.length) : undefined;
}

const latestContent = /^longshore-(.+)$/;
const pinnedContent = /^longshore\.([0-9a-f]{32})\.(.+)$/;

/** The name of the VolumeSnapshotContent of a point, which has its handle: no two have the same. */
export function contentNameOf({ migratedVolume, point }: PointHandle): string {
  return point === "latest" ? `longshore-${migratedVolume}` : `longshore.${point}.${migratedVolume}`;
}

/** What a content of {@link contentNameOf} stands for; `undefined` for contents of others. */
export function pointOfContent(contentName: string): PointHandle | undefined {
  const [, newest] = latestContent.exec(contentName) ?? [];
  if (newest !== undefined) return { kind: "point", migratedVolume: newest, point: "latest" };
  const [, point, pinned] = pinnedContent.exec(contentName) ?? [];
  return point === undefined || pinned === undefined ? undefined : { kind: "point", migratedVolume: pinned, point };
}

/** A name as the value of a label: itself where it fits, otherwise its beginning and a digest of all of it. */
export function labelValueOf(name: string): string {
  if (name.length <= nameLengthMax) return name;
  const head = name.slice(0, nameLengthMax - digestLength - 1).replace(/[^a-z0-9]+$/, "");
  return `${head}-${hash("sha256", name, "hex").slice(0, digestLength)}`;
}

/**
 * The parts joined by `-`, within 63 characters and fit for a Kubernetes name. A digest of all parts is added whenever
 * joining them is not reversible, so that different parts never give one name.
 */
function shortName(parts: readonly string[]): string {
  const fitting = parts.map(fit);
  const plain = fitting.join("-");
  const isReversible = parts.every((part, index) => part === fitting[index] && (isLast(index) || !part.includes("-")));
  if (plain.length <= nameLengthMax && isReversible) return plain;
  const digest = hash("sha256", JSON.stringify(parts), "hex").slice(0, digestLength);
  const last = fitting.at(-1) ?? "";
  const room = nameLengthMax - digestLength - last.length - 2;
  const head = fitting.slice(0, -1).join("-").slice(0, Math.max(0, room));
  return [head.replace(/[^a-z0-9]+$/, ""), last, digest].filter((part) => part !== "").join("-");

  function isLast(index: number): boolean {
    return index === parts.length - 1;
  }
}

/** What of a part may stand in a Kubernetes name; such names are left as they are. */
function fit(part: string): string {
  const lower = part.toLowerCase().replace(/[^a-z0-9.-]/g, "-");
  return lower.replace(/-*\.[.-]*/g, ".").replace(/^[.-]+|[.-]+$/g, "");
}
