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
  /** To be called once the engine has started, and now and then: makes ballast again, once there is room, after a full disk has used it up. */
  keepBallast(): void;
  close(): void;
}

/** Room that is given up when the disk is full. What comes in over lanes may take it before the journal does. */
const ballast = { name: "ballast", bytes: 8 << 20 };
/** Given up before the engine has started only, when nothing else writes: so an agent starts on a full disk in any case. */
const startBallast = { name: "ballast-for-start", bytes: 2 << 20 };

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
  const keepBallasts = () => {
    makeBallast(folder, startBallast);
    makeBallast(folder, ballast);
  };
  keepBallasts();
  let isStarting = true;
  return new SqliteJournal(database, {
    name: folder,
    keepBallast: () => {
      isStarting = false;
      keepBallasts();
    },
    dropBallast: () => dropBallast(folder, ballast) || (isStarting && dropBallast(folder, startBallast)),
  });
}

type Ballast = typeof ballast;

function makeBallast(folder: string, { name, bytes }: Ballast): void {
  const path = join(folder, name);
  if (existsSync(path)) return;
  try {
    const fd = openSync(path, "wx", 0o600);
    try {
      writeSync(fd, Buffer.alloc(bytes, 0x5a));
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

function dropBallast(folder: string, { name }: Ballast): boolean {
  const path = join(folder, name);
  if (!existsSync(path)) return false;
  unlinkSync(path);
  return true;
}
