import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { type Metrics, openMetrics } from "../base/metrics.ts";
import type { Core } from "./core.ts";
import { Gauges, volumeSeriesMax } from "./gauges.ts";
import { type Journal, openJournal } from "./journal.ts";

let folder: string;
let journal: Journal;
let gauges: Gauges;
let metrics: Metrics;

beforeEach(() => {
  metrics = openMetrics();
  folder = mkdtempSync(join(tmpdir(), "longshore-gauges-"));
  journal = openJournal(folder);
  gauges = new Gauges({ journal, metrics } as unknown as Core);
});
afterEach(() => {
  journal.close();
  rmSync(folder, { recursive: true });
});

async function lines(name: string): Promise<string[]> {
  const text = await metrics.render();
  return text.split("\n").filter((line) => line.startsWith(name) && /^[a-z_]+[{ ]/.test(line));
}

function base(uid: string, sourceTime: number): void {
  journal.transaction(() => {
    journal.run(
      `INSERT INTO volumes (name, uid, state, sizeBytes, metadataJson, migrationEnabled, createdAt, generation, revision)
       VALUES (?,?,'ready',4096,'{}',1,0,1,1)`,
      `name-${uid}`,
      uid,
    );
    journal.run(
      `INSERT INTO bases (owner, location, clusterUid, pointId, generation, sourceTime, movedAt) VALUES (?,'west','w','p',1,?,0)`,
      uid,
      sourceTime,
    );
  });
}

test("every state has its series from the start, so that an alert has something to compare", async () => {
  gauges.update();
  expect(await lines("longshore_jobs")).toContain('longshore_jobs{state="Undecided"} 0');
  expect(await lines("longshore_points_lost")).toEqual([
    'longshore_points_lost{kind="snapshot"} 0',
    'longshore_points_lost{kind="point"} 0',
  ]);
  expect(await lines("longshore_frozen_oldest")).toEqual(["longshore_frozen_oldest_since_seconds 0"]);
});

test("the lag can be told for each volume and location, and what is gone has no series any more", async () => {
  base("a", 5_000);
  base("b", 7_000);
  gauges.update();
  expect(await lines("longshore_base_source_time")).toEqual([
    'longshore_base_source_time_seconds{volume="name-a",location="west"} 5',
    'longshore_base_source_time_seconds{volume="name-b",location="west"} 7',
  ]);
  expect(await lines("longshore_base_oldest")).toEqual([
    'longshore_base_oldest_source_time_seconds{location="west"} 5',
  ]);
  journal.transaction(() => journal.run("DELETE FROM bases WHERE owner = 'a'"));
  gauges.update();
  expect(await lines("longshore_base_source_time")).toEqual([
    'longshore_base_source_time_seconds{volume="name-b",location="west"} 7',
  ]);
});

test("with very many volumes, those furthest behind have their series", async () => {
  for (let index = 0; index < volumeSeriesMax + 20; index++) base(`v${index}`, 1_000 * (index + 1));
  gauges.update();
  const series = await lines("longshore_base_source_time");
  expect(series).toHaveLength(volumeSeriesMax);
  expect(series[0]).toBe('longshore_base_source_time_seconds{volume="name-v0",location="west"} 1');
});

test("a copy whose vote waits for a decision is told apart from one that is frozen", async () => {
  journal.transaction(() => {
    for (const uid of ["a", "b"]) {
      journal.run(
        `INSERT INTO migrated (uid, name, source, clusterUid, clusterName, volumeUid, volumeName, metadataJson, sizeBytes,
         frozenSince, epoch, nonce, claimant, job, isTermLive, revision) VALUES (?1,?1,'east','e','east',?1,?1,'{}',4096,1,1,'','','',1,1)`,
        uid,
      );
    }
    journal.run("INSERT INTO votes (owner, groupPoint, epoch, requestJson, sealedJson) VALUES ('a','g',1,'{}','{}')");
  });
  gauges.update();
  expect(await lines("longshore_migrated_volumes")).toEqual([
    'longshore_migrated_volumes{state="Empty"} 0',
    'longshore_migrated_volumes{state="Available"} 0',
    'longshore_migrated_volumes{state="Frozen"} 1',
    'longshore_migrated_volumes{state="Undecided"} 1',
  ]);
});
