// A set of clones of one group point: one of each volume, all of the same moment. Asking again under the same name gives the
// same set, even if the group's newest point has moved meanwhile, for the clones that are there tell which point it is of.
import { LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "./agent-api.ts";
import type { CloneView, GroupPoint, GroupView, MigratedVolumeView } from "./schemas.ts";

export interface CloneSetSpec {
  /** The clones are named so, with the source volume's name behind it. */
  readonly name: string;
  readonly group: string;
  /** Needed only when groups of this name arrived from several clusters: the MigrationSource. */
  readonly source?: string | undefined;
  /** `latest`, or the id of a group point. */
  readonly point: string;
}

export interface CloneSet {
  readonly groupPoint: string;
  readonly clones: readonly CloneView[];
}

interface Planned {
  readonly name: string;
  readonly migratedVolume: string;
}

/**
 * Asks for the whole set, through an api that sees the whole cluster. Clones whose volume has not heard of the commit yet
 * wait for it. Throws `NotFound`, `PointGone`, and `NameTaken` when the set is there with another point.
 */
export async function putCloneSet(api: AgentApi, spec: CloneSetSpec): Promise<CloneSet> {
  const [groups, volumes, clones] = await Promise.all([api.listGroups(), api.listMigratedVolumes(), api.listClones()]);
  const group = groupOf(groups.items, spec);
  const point = pointOf(group, { spec, clones: clones.items, volumes: volumes.items });
  const planned = point.members.map((member) => planOf(group, { member, spec, volumes: volumes.items }));
  const made: CloneView[] = [];
  for (const { name, migratedVolume } of planned) {
    made.push(await api.putClone(name, { migratedVolume, point: point.groupPoint }));
  }
  return { groupPoint: point.groupPoint, clones: made };
}

/** The one group of that name. Throws `NotFound`, and `BadRequest` when a source has to be named. */
export function groupOf(groups: readonly GroupView[], asked: Pick<CloneSetSpec, "group" | "source">): GroupView {
  const { group: name, source } = asked;
  const found = groups.filter((group) => group.name === name && (source === undefined || group.source === source));
  const [only] = found;
  if (only === undefined) throw new LongshoreError("NotFound", `no group ${name} has arrived here`);
  if (found.length === 1) return only;
  const sources = found.map((group) => group.source ?? group.sourceClusterUid).join(", ");
  throw new LongshoreError("BadRequest", `group ${name} arrived from several clusters; name the source: ${sources}`);
}

function pointOf(
  group: GroupView,
  {
    spec,
    clones,
    volumes,
  }: { spec: CloneSetSpec; clones: readonly CloneView[]; volumes: readonly MigratedVolumeView[] },
): GroupPoint {
  const pinned = pinnedPoint(group, { spec, clones, volumes });
  if (pinned !== undefined && spec.point !== "latest" && spec.point !== pinned) {
    throw new LongshoreError("NameTaken", `the set ${spec.name} is of group point ${pinned}; choose another name`);
  }
  const wanted = pinned ?? spec.point;
  const point =
    wanted === "latest" ? group.points.at(-1) : group.points.find(({ groupPoint }) => groupPoint === wanted);
  if (point !== undefined) return point;
  const what = wanted === "latest" ? "committed point" : `point ${wanted}`;
  throw new LongshoreError("PointGone", `group ${group.name} has no ${what}`);
}

/** The group point that clones of this set, made before, are of. */
function pinnedPoint(
  group: GroupView,
  {
    spec,
    clones,
    volumes,
  }: { spec: CloneSetSpec; clones: readonly CloneView[]; volumes: readonly MigratedVolumeView[] },
): string | undefined {
  const ofGroup = volumes.filter(({ sourceClusterUid }) => sourceClusterUid === group.sourceClusterUid);
  const isOfSet = (clone: CloneView) =>
    ofGroup.some((volume) => volume.name === clone.spec.migratedVolume && clone.name === cloneName(spec.name, volume));
  return clones.find((clone) => clone.spec.point !== "latest" && isOfSet(clone))?.spec.point;
}

function planOf(
  group: GroupView,
  asked: { member: GroupPoint["members"][number]; spec: CloneSetSpec; volumes: readonly MigratedVolumeView[] },
): Planned {
  const { member, spec, volumes } = asked;
  const volume = volumes.find(
    ({ sourceClusterUid, sourceVolumeUid, home }) =>
      sourceClusterUid === group.sourceClusterUid && sourceVolumeUid === member.volume && home === member.home,
  );
  if (volume === undefined) {
    throw new LongshoreError(
      "NotFound",
      `the copy of ${member.volume} is not on agent ${member.home}: it was deleted, or the agent does not answer`,
    );
  }
  return { name: cloneName(spec.name, volume), migratedVolume: volume.name };
}

function cloneName(set: string, volume: MigratedVolumeView): string {
  return `${set}-${volume.sourceVolumeName}`;
}
