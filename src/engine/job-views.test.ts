import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { silentLog } from "../base/log.ts";
import { openMetrics } from "../base/metrics.ts";
import { taskGroup } from "../base/task-group.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { ShareSpec } from "../wire/member.ts";
import { openChangeFeed } from "./changes.ts";
import type { Core } from "./core.ts";
import { jobEnds } from "./job-ends.ts";
import { JobRows } from "./job-rows.ts";
import { JobViews } from "./job-views.ts";
import { type Journal, openJournal } from "./journal.ts";
import type { Locations } from "./locations.ts";
import type { Volumes } from "./volumes.ts";

let folder: string;
let journal: Journal;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "longshore-views-"));
  journal = openJournal(folder);
});
afterEach(() => {
  journal.close();
  rmSync(folder, { recursive: true });
});

const share: ShareSpec = {
  spec: { group: { name: "shop", volumes: ["v1"] }, location: "west", snapshot: "s1" },
  steered: 0,
  groupPoint: "a".repeat(32),
  to: { pointId: "a".repeat(32), generation: 1, sourceTime: "2026-01-01T00:00:00.000Z", sizeBytes: 4096 },
  participants: [{ agentId: "a1", volumes: [{ name: "v1", uid: "u1", toId: "b".repeat(32), sizeBytes: 4096 }] }],
};

function world() {
  const clock = new FakeClock();
  const shared = { journal, clock, log: silentLog, metrics: openMetrics(), tasks: taskGroup(silentLog) };
  const core = { ...shared, feed: openChangeFeed(0) } as unknown as Core;
  const rows = new JobRows(core);
  const views = new JobViews(core, { rows, locations: {} as Locations });
  const volumes = { touch: () => undefined, sweep: async () => undefined } as unknown as Volumes;
  journal.transaction(() => {
    rows.insert("job", share.spec, { owner: "group shop", to: share.to, shareJson: JSON.stringify(share) });
  });
  return { rows, views, end: jobEnds(core, { rows, views, volumes }) };
}

test("what was heard of a group's job goes into its row with its end, and is kept in memory no longer", () => {
  const { rows, views, end } = world();
  const nothing = views.heardText("another");
  views.note("job", (heard) => {
    heard.coordinator = "a1";
    heard.participants.set("a2", { report: undefined, silence: "it does not answer", heardAtMs: 5 });
  });
  expect(views.heardText("job")).not.toBe(nothing);
  end("job", "Failed", new LongshoreError("Unreachable", "nobody is there"));
  expect(views.heardText("job")).toBe(nothing);
  const kept = views.heard(rows.row("job"));
  expect(kept.coordinator).toBe("a1");
  expect(kept.participants.get("a2")).toMatchObject({ silence: "it does not answer", heardAtMs: 5 });
});

test("what comes after a job's end, or is of a job that is not known, is not kept", () => {
  const { rows, views, end } = world();
  const nothing = views.heardText("another");
  end("job", "Failed");
  for (const job of ["job", "another"]) {
    views.note(job, (heard) => {
      heard.coordinator = "late";
    });
    expect(views.heardText(job)).toBe(nothing);
  }
  expect(views.heard(rows.row("job")).coordinator).toBeNull();
});

test("looking at a job keeps nothing of it", () => {
  const { rows, views } = world();
  expect(views.heard(rows.row("job"))).toMatchObject({ coordinator: null, group: null, targets: [] });
  expect(views.heard(rows.row("job"))).not.toBe(views.heard(rows.row("job")));
});
