// The one number to alert on: how old the newest complete point of each volume is at each location. It is kept as the point's
// time, for a lag grows by itself and a scrape sees it as it was last set; the lag is `time() - metric`.

import type { VolumeMigration, VolumeMigrationStatusLocation } from "../api/volume-migration.ts";
import type { Metrics } from "../base/metrics.ts";

type Labels = Readonly<Record<"volume" | "namespace" | "claim" | "location", string>>;

export interface LagMetric {
  /** Tells how far a volume is, everywhere; locations that are not named are forgotten. */
  set(migration: VolumeMigration, locations: readonly VolumeMigrationStatusLocation[]): void;
  /** Forgets a volume that is gone. */
  forget(volume: string): void;
}

export function openLagMetric(metrics: Metrics): LagMetric {
  const gauge = metrics.gauge(
    "longshore_newest_point_timestamp_seconds",
    "Source time of the newest complete point in time at the location; the lag is now minus this",
    ["volume", "namespace", "claim", "location"],
  );
  const known = new Map<string, readonly Labels[]>();
  const forget = (volume: string) => {
    for (const labels of known.get(volume) ?? []) gauge.drop(labels);
    known.delete(volume);
  };
  return {
    set({ metadata, spec }, locations) {
      forget(metadata.name);
      const rows = locations.flatMap(({ name, newestPointTime }) => {
        if (newestPointTime === undefined) return [];
        const { namespace = "", name: claim = "" } = spec.claim ?? {};
        const labels: Labels = { volume: metadata.name, namespace, claim, location: name };
        gauge.set(Date.parse(newestPointTime) / 1_000, labels);
        return [labels];
      });
      if (rows.length > 0) known.set(metadata.name, rows);
    },
    forget,
  };
}
