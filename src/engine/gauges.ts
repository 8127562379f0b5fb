// What a person is woken up for, as gauges: how old the copies are, what is frozen or undecided, what is lost or piles up.
// Series by volume are bounded in number: the volumes that are furthest behind have theirs, the others are counted.
import type { GaugeMetric } from "../base/metrics.ts";
import type { Core } from "./core.ts";

/** Series of one metric that name a volume, at most. */
export const volumeSeriesMax = 500;

interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

interface Family {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  read(core: Core): Series[];
}

const families: readonly Family[] = [
  {
    name: "longshore_base_source_time_seconds",
    help: "Source time of the newest point at the location, Unix time; now minus this is the lag. The oldest ones only",
    labels: ["volume", "location"],
    read: ({ journal }) =>
      journal
        .all<{ volume: string; location: string; time: number }>(
          `SELECT volumes.name AS volume, location, sourceTime AS time FROM bases JOIN volumes ON volumes.uid = bases.owner
           ORDER BY sourceTime LIMIT ?`,
          volumeSeriesMax,
        )
        .map(({ volume, location, time }) => ({ labels: { volume, location }, value: time / 1000 })),
  },
  {
    name: "longshore_base_oldest_source_time_seconds",
    help: "Source time of the newest point of the volume that is furthest behind at the location, Unix time",
    labels: ["location"],
    read: ({ journal }) =>
      journal
        .all<{ location: string; time: number }>(
          "SELECT location, min(sourceTime) AS time FROM bases GROUP BY location",
        )
        .map(({ location, time }) => ({ labels: { location }, value: time / 1000 })),
  },
  {
    name: "longshore_point_oldest_source_time_seconds",
    help: "Source time of the newest point of the migrated volume that is furthest behind its source, Unix time",
    labels: ["source"],
    read: ({ journal }) =>
      journal
        .all<{ source: string; time: number }>(
          `SELECT source, min(newest) AS time FROM (SELECT migrated.source AS source, max(points.sourceTime) AS newest
           FROM migrated JOIN points ON points.owner = migrated.uid AND points.state = 'sealed' AND points.released = 0
           WHERE migrated.deleting = 0 GROUP BY migrated.uid) GROUP BY source`,
        )
        .map(({ source, time }) => ({ labels: { source }, value: time / 1000 })),
  },
  counted(
    "longshore_jobs",
    "Jobs that have not finished, by state",
    "state",
    "SELECT state AS label, count(*) AS n FROM jobs WHERE finishedAt IS NULL AND parent IS NULL GROUP BY state",
    ["Pending", "Running", "Suspended", "Undecided"],
  ),
  counted(
    "longshore_migrated_volumes",
    "Migrated volumes, by state; Undecided for longer than a moment: their group home is away",
    "state",
    `SELECT CASE WHEN uid IN (SELECT owner FROM votes) THEN 'Undecided' WHEN frozenSince IS NOT NULL THEN 'Frozen' WHEN EXISTS (SELECT 1 FROM points WHERE owner = uid
     AND points.state = 'sealed' AND released = 0) THEN 'Available' ELSE 'Empty' END AS label, count(*) AS n
     FROM migrated WHERE deleting = 0 GROUP BY label`,
    ["Empty", "Available", "Frozen", "Undecided"],
  ),
  counted(
    "longshore_points_lost",
    "Snapshots and points whose file is missing or replaced",
    "kind",
    `SELECT CASE WHEN name IS NULL THEN 'point' ELSE 'snapshot' END AS label, count(*) AS n FROM points
     WHERE state = 'lost' GROUP BY label`,
    ["snapshot", "point"],
  ),
  counted(
    "longshore_snapshots_held",
    "Snapshots that are released and kept for a hold, by its reason",
    "reason",
    `SELECT reason AS label, count(*) AS n FROM holds JOIN points USING (owner, pointId) WHERE released = 1 GROUP BY reason`,
    ["base", "job", "clone", "user"],
  ),
  counted(
    "longshore_clones_unserved",
    "Clones that wait or are being made",
    "state",
    "SELECT state AS label, count(*) AS n FROM clones WHERE state <> 'Ready' GROUP BY state",
    ["Waiting", "Creating"],
  ),
  {
    name: "longshore_frozen_oldest_since_seconds",
    help: "Since when the migrated volume that is frozen for longest is frozen, Unix time; 0 when none is",
    labels: [],
    read: ({ journal }) => {
      const since = journal.get<{ since: number | null }>("SELECT min(frozenSince) AS since FROM migrated")?.since;
      return [{ labels: {}, value: (since ?? 0) / 1000 }];
    },
  },
];

/** One series for each of `values`, 0 included, so that an alert has something to compare. */
function counted(name: string, help: string, label: string, sql: string, values: readonly string[]): Family {
  return {
    name,
    help,
    labels: [label],
    read: ({ journal }) => {
      const found = new Map(journal.all<{ label: string; n: number }>(sql).map((row) => [row.label, row.n]));
      return values.map((value) => ({ labels: { [label]: value }, value: found.get(value) ?? 0 }));
    },
  };
}

export class Gauges {
  private readonly core: Core;
  /** The series each metric had at last, by their labels. */
  private readonly shown = new Map<string, Map<string, Series["labels"]>>();

  constructor(core: Core) {
    this.core = core;
  }

  /** Reads everything anew; series of what is gone are dropped. */
  update(): void {
    for (const family of families) {
      const gauge = this.core.metrics.gauge(family.name, family.help, family.labels);
      this.show(family, gauge, family.read(this.core));
    }
  }

  private show({ name }: Family, gauge: GaugeMetric, series: readonly Series[]): void {
    const before = this.shown.get(name) ?? new Map<string, Series["labels"]>();
    const now = new Map(series.map(({ labels }) => [JSON.stringify(labels), labels]));
    for (const [key, labels] of before) if (!now.has(key)) gauge.drop(labels);
    for (const { labels, value } of series) gauge.set(value, labels);
    this.shown.set(name, now);
  }
}
