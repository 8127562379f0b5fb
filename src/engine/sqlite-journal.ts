// A journal in an SQLite database, wherever it lives: transactions, statements, and the upgrade of its tables.
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { assert } from "../base/assert.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Journal, Value } from "./journal.ts";
import { upgrades } from "./schema.ts";

/** Where a journal's database lives. */
export interface JournalHome {
  /** For messages. */
  readonly name: string;
  /** See {@link Journal.keepBallast}. */
  keepBallast(): void;
  /** Makes room on a full disk; false when there is nothing left to give up. */
  dropBallast(): boolean;
}

/** A journal in a database that {@link bringUpToDate} has prepared, wherever that lives. */
export class SqliteJournal implements Journal {
  private readonly database: DatabaseSync;
  private readonly home: JournalHome;
  private readonly statements = new Map<string, StatementSync>();
  private isInTransaction = false;

  constructor(database: DatabaseSync, home: JournalHome) {
    this.database = database;
    this.home = home;
  }

  transaction<T>(work: () => T): T {
    try {
      return this.attempt(work);
    } catch (error) {
      if (!isSqlite(error, "disk is full")) throw error;
      // A full disk must not keep the agent from recording that space was freed: the ballast makes room, once.
      if (this.home.dropBallast()) return this.transaction(work);
      throw new LongshoreError("DiskFull", `the journal in ${this.home.name} cannot be written to`, { cause: error });
    }
  }

  keepBallast(): void {
    this.home.keepBallast();
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
export function bringUpToDate(database: DatabaseSync, name: string): void {
  const { user_version: version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
  if (version === upgrades.length) return;
  if (version > upgrades.length) {
    throw new LongshoreError("Unsupported", `${name} was written by a version with schema ${version}; upgrade first`);
  }
  const missing = upgrades.slice(version).join("\n");
  database.exec(`BEGIN IMMEDIATE; ${missing}; PRAGMA user_version=${upgrades.length}; COMMIT`);
}

/** By its shape: under Jest, errors of Node.js are of another realm than our `Error`. */
export function isSqlite(error: unknown, text: string): boolean {
  return typeof error === "object" && error !== null && "errstr" in error && String(error.errstr).includes(text);
}
