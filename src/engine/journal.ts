// The agent's durable state: one SQLite file beside its volumes, the truth about data. WAL with synchronous=FULL: a
// transaction that returned survives a power cut. Locked exclusively, so that a second agent on the same folder is refused.
import { closeSync, existsSync, fsyncSync, openSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { LongshoreError } from "../domain/errors.ts";
import { bringUpToDate, isSqlite, SqliteJournal } from "./sqlite-journal.ts";

export type Value = SQLInputValue;

export interface Journal {
  /**
   * Runs `work` as one transaction: all of it is durable on return, or none of it happened. Not reentrant. Throws
   * `DiskFull`; `work` may be run a second time when the disk was found full at first.
   */
  transaction<T>(work: () => T): T;
  all<Row>(sql: string, ...values: Value[]): Row[];
  get<Row>(sql: string, ...values: Value[]): Row | undefined;
  /** Number of rows changed. */
  run(sql: string, ...values: Value[]): number;
  /** Makes the ballast again, once there is room, after a full disk has used it up. */
  keepBallast(): void;
  close(): void;
}

const ballastBytes = 8 << 20;

/** Opens (making it if need be) the journal in `folder`. Throws `InUse` when another process has it open. */
export function openJournal(folder: string): Journal {
  const database = new DatabaseSync(join(folder, "state.db"));
  try {
    database.exec(
      "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON",
    );
    bringUpToDate(database, folder);
  } catch (error) {
    database.close();
    if (!isSqlite(error, "database is locked")) throw error;
    throw new LongshoreError("InUse", `another agent is running on ${folder}; stop it first`, { cause: error });
  }
  makeBallast(folder);
  return new SqliteJournal(database, {
    name: folder,
    keepBallast: () => makeBallast(folder),
    dropBallast: () => dropBallast(folder),
  });
}

function makeBallast(folder: string): void {
  const path = join(folder, "ballast");
  if (existsSync(path)) return;
  try {
    const fd = openSync(path, "wx", 0o600);
    try {
      writeSync(fd, Buffer.alloc(ballastBytes, 0x5a));
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    // On a full disk there is no room for ballast; the next start with space makes it.
    if (existsSync(path)) unlinkSync(path);
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

function dropBallast(folder: string): boolean {
  const path = join(folder, "ballast");
  if (!existsSync(path)) return false;
  unlinkSync(path);
  return true;
}
