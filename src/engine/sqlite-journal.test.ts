import { DatabaseSync } from "node:sqlite";
import { expect, test } from "@jest/globals";
import { upgrades } from "./schema.ts";
import { bringUpToDate } from "./sqlite-journal.ts";

/** A journal as a process of that version has left it. */
function journalOf(version: number): DatabaseSync {
  const database = new DatabaseSync(":memory:");
  database.exec(`${upgrades.slice(0, version).join("\n")}; PRAGMA user_version=${version}`);
  return database;
}

function tablesOf(database: DatabaseSync) {
  return database.prepare("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").all();
}

test.each(upgrades.map((_, index) => index + 1))("a journal of version %i becomes what a new one is", (version) => {
  const [old, fresh] = [journalOf(version), journalOf(0)];
  for (const database of [old, fresh]) bringUpToDate(database, "memory");
  expect(tablesOf(old)).toEqual(tablesOf(fresh));
  expect(old.prepare("PRAGMA user_version").get()).toEqual({ user_version: upgrades.length });
});

test("a journal of a later version is refused, and left as it is", () => {
  const later = journalOf(upgrades.length);
  later.exec(`PRAGMA user_version=${upgrades.length + 1}`);
  expect(() => bringUpToDate(later, "memory")).toThrow(expect.objectContaining({ code: "Unsupported" }));
  expect(later.prepare("PRAGMA user_version").get()).toEqual({ user_version: upgrades.length + 1 });
});

test.each([
  [
    "has met another one",
    "INSERT INTO members (agentId, node, address, laneAddress, incarnation, state) VALUES ('b', 'n', 'x:1', 'x:2', 1, 'member')",
    1,
  ],
  ["is new", "", 0],
])("an agent of an earlier version that %s knows who else there is: %s %i", (_, rows, isAcquainted) => {
  const database = journalOf(7);
  database.exec(`INSERT INTO agent (id, clusterUid) VALUES ('a', 'c'); ${rows}`);
  bringUpToDate(database, "memory");
  expect(database.prepare("SELECT isAcquainted FROM agent").get()).toEqual({ isAcquainted });
});

test("what a journal has stays: clones are kept, and a home that was just chosen counts from the upgrade on", () => {
  const database = journalOf(4);
  database.exec(`
    INSERT INTO placements (clusterUid, volumeUid, agentId) VALUES ('c', 'v', 'a');
    INSERT INTO clones (name, specJson, state, migrated, requestedAt, askedAt, servedAt, revision)
    VALUES ('clone', '{}', 'Ready', 'm', 1, 1, 1, 1)`);
  bringUpToDate(database, "memory");
  expect(database.prepare("SELECT isKept FROM clones").get()).toEqual({ isKept: 1 });
  const { placedAt } = database.prepare("SELECT placedAt FROM placements").get() as { placedAt: number };
  expect(Math.abs(Date.now() - placedAt)).toBeLessThan(3_600_000);
});
