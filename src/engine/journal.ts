// The agent's durable state: one SQLite file beside its volumes, the truth about data. WAL with synchronous=FULL: a
// transaction that returned survives a power cut. Locked exclusively, so that a second agent on the same folder is refused.
import { closeSync, existsSync, fsyncSync, openSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { assert } from "../base/assert.ts";
import { LongshoreError } from "../domain/errors.ts";
import { upgrades } from "./schema.ts";

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
    migrate(database, folder);
  } catch (error) {
    database.close();
    if (!isSqlite(error, "database is locked")) throw error;
    throw new LongshoreError("InUse", `another agent is running on ${folder}; stop it first`, { cause: error });
  }
  makeBallast(folder);
  return new SqliteJournal(database, folder);
}

class SqliteJournal implements Journal {
  private readonly database: DatabaseSync;
  private readonly folder: string;
  private readonly statements = new Map<string, StatementSync>();
  private isInTransaction = false;

  constructor(database: DatabaseSync, folder: string) {
    this.database = database;
    this.folder = folder;
  }

  transaction<T>(work: () => T): T {
    try {
      return this.attempt(work);
    } catch (error) {
      if (!isSqlite(error, "disk is full")) throw error;
      // A full disk must not keep the agent from recording that space was freed: the ballast makes room, once.
      if (dropBallast(this.folder)) return this.transaction(work);
      throw new LongshoreError("DiskFull", `the journal in ${this.folder} cannot be written to`, { cause: error });
    }
  }

  keepBallast(): void {
    makeBallast(this.folder);
  }

  private attempt<T>(work: () => T): T {
    assert(!this.isInTransaction, "transactions do not nest");
    this.database.exec("BEGIN IMMEDIATE");
    this.isInTransaction = true;
    try {
      const result = work();
      assert(!(result instanceof Promise), "a transaction cannot wait");
      this.database.exec("COMMIT");
      return result;
    } catch (error) {
      // SQLite has rolled back by itself after some errors, a full disk among them.
      if (this.database.isTransaction) this.database.exec("ROLLBACK");
      throw error;
    } finally {
      this.isInTransaction = false;
    }
  }

  all<Row>(sql: string, ...values: Value[]): Row[] {
    return this.prepare(sql).all(...values) as Row[];
  }

  get<Row>(sql: string, ...values: Value[]): Row | undefined {
    return this.prepare(sql).get(...values) as Row | undefined;
  }

  run(sql: string, ...values: Value[]): number {
    assert(this.isInTransaction, "every change is part of a transaction");
    return Number(this.prepare(sql).run(...values).changes);
  }

  close(): void {
    this.database.close();
  }

  private prepare(sql: string): StatementSync {
    const known = this.statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.database.prepare(sql);
    this.statements.set(sql, statement);
    return statement;
  }
}

/** Brings a journal to the newest version, in one transaction; one of a version that is not known yet is left alone. */
function migrate(database: DatabaseSync, folder: string): void {
  const { user_version: version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
  if (version === upgrades.length) return;
  if (version > upgrades.length) {
    throw new LongshoreError("Unsupported", `${folder} was written by a version with schema ${version}; upgrade first`);
  }
  const missing = upgrades.slice(version).join("\n");
  database.exec(`BEGIN IMMEDIATE; ${missing}; PRAGMA user_version=${upgrades.length}; COMMIT`);
}

/** By its shape: under Jest, errors of Node.js are of another realm than our `Error`. */
function isSqlite(error: unknown, text: string): boolean {
  return typeof error === "object" && error !== null && "errstr" in error && String(error.errstr).includes(text);
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
