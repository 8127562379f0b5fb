// `longshore volume|location|source|migrated|group|clone list|show`: what an agent has, all in one form.
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { renderBytes } from "../domain/quantity.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import { groupOf } from "../wire/clone-set.ts";
import type {
  CloneView,
  GroupPoint,
  GroupView,
  List,
  LocationView,
  MigratedPoint,
  MigratedVolumeView,
  SnapshotView,
  SourceView,
  VolumeView,
} from "../wire/schemas.ts";
import { addCloneCommands } from "./clone-commands.ts";
import { type Asking, type ConnectionOptions, connected, withAgent } from "./connection.ts";
import { addGroupCommands } from "./group-commands.ts";
import type { Streams } from "./streams.ts";
import { ageOf, type Column, renderFields, renderTable, stateText } from "./table.ts";

interface View<T> {
  readonly noun: string;
  readonly description: string;
  readonly list: (api: AgentApi) => Promise<List<T>>;
  readonly get: (api: AgentApi, name: string) => Promise<T>;
  readonly columns: (streams: Asking) => readonly Column<T>[];
  readonly detail: (item: T, streams: Asking) => string;
}

export function addViewCommands(program: Command, streams: Streams): void {
  addView(program, streams, volumeView);
  addView(program, streams, locationView);
  addView(program, streams, sourceView);
  addView(program, streams, migratedView);
  addGroupCommands(addView(program, streams, groupView), streams);
  addCloneCommands(addView(program, streams, cloneView), streams, cloneView.columns);
}

function addView<T>(program: Command, streams: Streams, view: View<T>): Command {
  const command = program.command(view.noun).description(view.description);
  connected(command.command("list").description("All of them.")).action((options: ConnectionOptions) =>
    withAgent(options, streams, async (asking) => {
      const { items } = await view.list(asking.api);
      asking.show(items, () => renderTable(view.columns(asking), items, "none"));
    }),
  );
  connected(command.command("show <name>").description("One of them.")).action(
    (name: string, options: ConnectionOptions) =>
      withAgent(options, streams, async (asking) => {
        const item = await view.get(asking.api, name);
        asking.show(item, () => view.detail(item, asking));
      }),
  );
  return command;
}

const age = (time: string | null | undefined) => ageOf(time, systemClock.nowMs());

const volumeView: View<VolumeView> = {
  noun: "volume",
  description: "Volumes with their snapshots and bases.",
  list: (api) => api.listVolumes(),
  get: (api, name) => api.getVolume(name),
  columns: () => [
    { title: "NAME", of: (volume) => volume.name },
    { title: "SIZE", of: (volume) => renderBytes(volume.sizeBytes), align: "right" },
    { title: "MIGRATES", of: (volume) => (volume.migrationEnabled ? "yes" : "no") },
    { title: "GENERATION", of: (volume) => volume.generation, align: "right" },
    { title: "SNAPSHOTS", of: (volume) => volume.snapshots.length, align: "right" },
    { title: "BASES", of: (volume) => volume.bases.map((base) => `${base.location}@${base.generation}`).join(",") },
    { title: "PROBLEM", of: (volume) => volume.problem?.code },
    { title: "AGE", of: (volume) => age(volume.createdAt), align: "right" },
  ],
  detail(volume, streams) {
    const fields = renderFields({
      volume: volume.name,
      uid: volume.uid,
      size: renderBytes(volume.sizeBytes),
      path: volume.path,
      home: volume.home,
      migrates: volume.migrationEnabled,
      generation: volume.generation,
      "clone of": volume.lineage && `${volume.lineage.volumeUid} of cluster ${volume.lineage.clusterUid}`,
      metadata: JSON.stringify(volume.metadata),
      problem: volume.problem?.detail,
      next: volume.problem?.advice,
    });
    const bases = volume.bases.map(
      (base) => `base at ${base.location}: generation ${base.generation}, ${base.sourceTime}\n`,
    );
    return `${fields}${bases.join("")}\n${renderTable(snapshotColumns(streams), volume.snapshots, "no snapshots")}`;
  },
};

function snapshotColumns(streams: Asking): Column<SnapshotView>[] {
  return [
    { title: "SNAPSHOT", of: (snapshot) => snapshot.name },
    { title: "GENERATION", of: (snapshot) => snapshot.generation, align: "right" },
    { title: "STATE", of: (snapshot) => stateText(snapshot.state, streams) },
    { title: "RELEASED", of: (snapshot) => (snapshot.released ? "yes" : "no") },
    { title: "HOLDS", of: (snapshot) => snapshot.holds.map((hold) => `${hold.reason}:${hold.owner}`).join(",") },
    { title: "AGE", of: (snapshot) => age(snapshot.createdAt), align: "right" },
  ];
}

const locationView: View<LocationView> = {
  noun: "location",
  description: "Where volumes migrate to.",
  list: (api) => api.listLocations(),
  get: (api, name) => api.getLocation(name),
  columns: (streams) => [
    { title: "NAME", of: (location) => location.name },
    { title: "CLUSTER", of: (location) => location.spec.clusterName },
    { title: "STATE", of: (location) => stateText(location.state, streams) },
    { title: "VOLUMES", of: (location) => location.volumes, align: "right" },
    { title: "FREE", of: (location) => location.freeBytes && renderBytes(location.freeBytes), align: "right" },
    {
      title: "ROUND TRIP",
      of: (location) => location.roundTripMs && `${location.roundTripMs.toFixed(1)}ms`,
      align: "right",
    },
    { title: "PROBED", of: (location) => age(location.probedAt), align: "right" },
    { title: "MESSAGE", of: (location) => location.message },
  ],
  detail: (location, streams) =>
    renderFields({
      location: location.name,
      cluster: location.spec.clusterName,
      uid: location.clusterUid,
      state: stateText(location.state, streams),
      message: location.message,
      seeds: location.spec.seeds.join(", "),
      members: location.members.map((member) => `${member.node} ${member.address}`).join(", "),
      volumes: location.volumes,
      free: location.freeBytes && renderBytes(location.freeBytes),
      probed: location.probedAt,
    }),
};

const sourceView: View<SourceView> = {
  noun: "source",
  description: "Whose volumes are taken.",
  list: (api) => api.listSources(),
  get: (api, name) => api.getSource(name),
  columns: () => [
    { title: "NAME", of: (source) => source.name },
    { title: "CLUSTER", of: (source) => source.spec.clusterName },
    { title: "VOLUMES", of: (source) => source.volumes, align: "right" },
    { title: "USED", of: (source) => renderBytes(source.usedBytes), align: "right" },
    { title: "QUOTA", of: ({ spec }) => spec.quotaBytes && renderBytes(spec.quotaBytes), align: "right" },
    { title: "LAST SEEN", of: (source) => age(source.lastSeenAt), align: "right" },
  ],
  detail: (source) =>
    renderFields({
      source: source.name,
      cluster: source.spec.clusterName,
      uid: source.clusterUid,
      volumes: source.volumes,
      used: renderBytes(source.usedBytes),
      quota: source.spec.quotaBytes && renderBytes(source.spec.quotaBytes),
      "points kept": source.spec.pointsKept,
      "last seen": source.lastSeenAt,
    }),
};

const migratedView: View<MigratedVolumeView> = {
  noun: "migrated",
  description: "Volumes that arrived here, and their points in time.",
  list: (api) => api.listMigratedVolumes(),
  get: (api, name) => api.getMigratedVolume(name),
  columns: (streams) => [
    { title: "NAME", of: (volume) => volume.name },
    { title: "SOURCE", of: (volume) => volume.sourceClusterName },
    { title: "VOLUME", of: (volume) => volume.sourceVolumeName },
    { title: "SIZE", of: (volume) => renderBytes(volume.sizeBytes), align: "right" },
    { title: "STATE", of: (volume) => stateText(volume.state, streams) },
    { title: "POINTS", of: (volume) => volume.points.length, align: "right" },
    { title: "NEWEST", of: (volume) => volume.points.at(-1)?.sourceTime },
    { title: "LAG", of: (volume) => age(volume.points.at(-1)?.sourceTime), align: "right" },
    { title: "WAITING", of: (volume) => volume.waitingClones, align: "right" },
  ],
  detail(volume, streams) {
    const { transfer } = volume;
    const fields = renderFields({
      "migrated volume": volume.name,
      source: `${volume.sourceVolumeName} of ${volume.sourceClusterName} (${volume.sourceVolumeUid})`,
      size: renderBytes(volume.sizeBytes),
      state: stateText(volume.state, streams),
      group: volume.group && `${volume.group.name}, decided by agent ${volume.group.home}`,
      diverged: volume.diverged || null,
      transfer:
        transfer && `${transfer.job}: ${renderBytes(transfer.bytesStored)} of ${renderBytes(transfer.bytesTotal)}`,
      "waiting clones": volume.waitingClones,
      metadata: JSON.stringify(volume.metadata),
    });
    return `${fields}\n${renderTable(pointColumns(streams), volume.points, "no point in time yet")}`;
  },
};

function pointColumns(streams: Asking): Column<MigratedPoint>[] {
  return [
    { title: "POINT", of: (point) => point.pointId },
    { title: "GENERATION", of: (point) => point.generation, align: "right" },
    { title: "SOURCE TIME", of: (point) => point.sourceTime },
    { title: "COMMITTED", of: (point) => point.committedAt },
    { title: "GROUP POINT", of: (point) => point.groupPoint },
    { title: "STATE", of: (point) => stateText(point.state, streams) },
    { title: "VERIFIED", of: (point) => point.verified },
    { title: "HOLDS", of: (point) => point.holds.map((hold) => `${hold.reason}:${hold.owner}`).join(",") },
  ];
}

const groupView: View<GroupView> = {
  noun: "group",
  description: "Groups: those that arrived here, and snapshots of volumes at one moment.",
  list: (api) => api.listGroups(),
  get: async (api, name) => groupOf((await api.listGroups()).items, nameOf(name)),
  columns: (streams) => [
    { title: "NAME", of: (group) => group.name },
    { title: "SOURCE", of: (group) => group.source ?? group.sourceClusterUid },
    { title: "STATE", of: (group) => stateText(group.state, streams) },
    { title: "VOLUMES", of: (group) => group.points.at(-1)?.members.length, align: "right" },
    { title: "POINTS", of: (group) => group.points.length, align: "right" },
    { title: "NEWEST", of: (group) => group.points.at(-1)?.groupPoint },
    { title: "COMMITTED", of: (group) => age(group.points.at(-1)?.committedAt), align: "right" },
    { title: "HOME", of: (group) => group.home },
  ],
  detail(group, streams) {
    const fields = renderFields({
      group: group.name,
      source: group.source,
      "source cluster": group.sourceClusterUid,
      home: group.home,
      state: stateText(group.state, streams),
      epoch: group.epoch,
      job: group.job,
    });
    return `${fields}\n${renderTable(groupPointColumns, group.points, "nothing committed yet")}`;
  },
};

/** `source/name` where groups of one name came from several clusters. */
function nameOf(text: string): { group: string; source?: string } {
  const [first = "", second] = text.split("/");
  return second === undefined ? { group: first } : { source: first, group: second };
}

const groupPointColumns: Column<GroupPoint>[] = [
  { title: "GROUP POINT", of: (point) => point.groupPoint },
  { title: "COMMITTED", of: (point) => point.committedAt },
  { title: "JOB", of: (point) => point.job },
  { title: "EPOCH", of: (point) => point.epoch, align: "right" },
  { title: "VOLUMES", of: (point) => point.members.map(({ volume, home }) => `${volume}@${home}`).join(",") },
];

const cloneView: View<CloneView> = {
  noun: "clone",
  description: "Clones of migrated volumes, and those that wait.",
  list: (api) => api.listClones(),
  get: (api, name) => api.getClone(name),
  columns: (streams) => [
    { title: "NAME", of: (clone) => clone.name },
    { title: "OF", of: (clone) => clone.spec.migratedVolume },
    { title: "STATE", of: (clone) => stateText(clone.state, streams) },
    { title: "SIZE", of: (clone) => clone.sizeBytes && renderBytes(clone.sizeBytes), align: "right" },
    { title: "AS OF", of: (clone) => clone.sourceTime },
    { title: "PATH", of: (clone) => clone.path },
    { title: "AGE", of: (clone) => age(clone.requestedAt), align: "right" },
  ],
  detail: (clone, streams) =>
    renderFields({
      clone: clone.name,
      of: clone.spec.migratedVolume,
      asked: clone.spec.point,
      state: stateText(clone.state, streams),
      point: clone.pointId,
      "as of": clone.sourceTime,
      volume: clone.volume,
      path: clone.path,
      size: clone.sizeBytes && renderBytes(clone.sizeBytes),
      transfer: clone.bytesTotal && `${renderBytes(clone.bytesStored ?? 0)} of ${renderBytes(clone.bytesTotal)}`,
      requested: clone.requestedAt,
      served: clone.servedAt,
    }),
};
