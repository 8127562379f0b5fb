import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { Core } from "./core.ts";
import { type Journal, openJournal } from "./journal.ts";
import { readHolds, takeHold } from "./points.ts";
import { Volumes } from "./volumes.ts";

const clock = new FakeClock();
let folder: string;
let journal: Journal;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "longshore-points-"));
  journal = openJournal(folder);
});
afterEach(() => {
  journal.close();
  rmSync(folder, { recursive: true });
});

/** A volume with so many snapshots, each with a hold for a location and one of a person. */
function volumeWith(uid: string, snapshots: number): void {
  journal.transaction(() => {
    journal.run(
      `INSERT INTO volumes (name, uid, state, sizeBytes, metadataJson, migrationEnabled, createdAt, generation, revision)
       VALUES (?,?,'ready',4096,'{}',1,0,1,1)`,
      `name-${uid}`,
      uid,
    );
    for (let number = 1; number <= snapshots; number++) {
      const pointId = `${uid}-${number}`;
      journal.run(
        `INSERT INTO points (owner, pointId, name, generation, state, file, sizeBytes, sourceTime, position)
         VALUES (?,?,?,?,'sealed',?,4096,0,?)`,
        uid,
        pointId,
        `s${number}`,
        number,
        pointId,
        number,
      );
      takeHold({ journal, clock }, { owner: uid, pointId, reason: "user", holder: "me" });
      takeHold({ journal, clock }, { owner: uid, pointId, reason: "base", holder: "west" });
    }
  });
}

test("holds are told by point, in the order of reasons and holders, of one owner or of all", () => {
  volumeWith("a", 2);
  volumeWith("b", 1);
  const since = new Date(clock.nowMs()).toISOString();
  const expected = [
    { reason: "base", owner: "west", since },
    { reason: "user", owner: "me", since },
  ];
  const [all, ofA] = [readHolds(journal), readHolds(journal, "a")];
  expect(all({ owner: "a", pointId: "a-2" })).toEqual(expected);
  expect(all({ owner: "b", pointId: "b-1" })).toEqual(expected);
  expect(ofA({ owner: "a", pointId: "a-1" })).toEqual(expected);
  expect(ofA({ owner: "b", pointId: "b-1" })).toEqual([]);
});

test("a listing of volumes takes no more queries for more snapshots", () => {
  let queries = 0;
  const counted: Journal = {
    transaction: (work) => journal.transaction(work),
    all: (sql, ...values) => {
      queries += 1;
      return journal.all(sql, ...values);
    },
    get: (sql, ...values) => {
      queries += 1;
      return journal.get(sql, ...values);
    },
    run: (sql, ...values) => journal.run(sql, ...values),
    keepBallast: () => journal.keepBallast(),
    close: () => journal.close(),
  };
  const storage = { livePath: () => "/live" };
  const volumes = new Volumes({ journal: counted, agentId: "a1", storage } as unknown as Core);
  volumeWith("a", 1);
  const [one] = volumes.list();
  const forOne = queries;
  volumeWith("b", 20);
  queries = 0;
  const [, many] = volumes.list();
  expect([one, many].map((view) => view?.snapshots.flatMap(({ holds }) => holds).length)).toEqual([2, 40]);
  // What is asked for each volume is asked twice now, and nothing for each snapshot.
  expect(queries).toBeLessThan(2 * forOne);
});
