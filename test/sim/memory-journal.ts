// Journals in memory. The database outlives the process that has it open, as a file would; every committed transaction is
// remembered, so that an older image of it can be made again.
import { DatabaseSync } from "node:sqlite";
import type { Journal, Value } from "../../src/engine/journal.ts";
import { bringUpToDate, SqliteJournal } from "../../src/engine/sqlite-journal.ts";

interface Statement {
  readonly sql: string;
  readonly values: readonly Value[];
}

/** Making a database and its statements costs more than all else in a short run; they are used again, emptied. */
const spare: { database: DatabaseSync; journal: SqliteJournal }[] = [];

function emptied() {
  const used = spare.pop();
  if (used !== undefined) return used;
  const database = new DatabaseSync(":memory:");
  database.exec("PRAGMA foreign_keys=OFF");
  bringUpToDate(database, "memory");
  const names = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all() as { name: string }[];
  for (const { name } of names) tableNames.add(name);
  const home = { name: "memory", keepBallast: () => undefined, dropBallast: () => false };
  return { database, journal: new SqliteJournal(database, home) };
}

const tableNames = new Set<string>();
const readBy = new Map<string, readonly string[]>();

/** The tables that a statement may read. */
function tablesRead(sql: string): readonly string[] {
  const known = readBy.get(sql);
  if (known !== undefined) return known;
  const tables = [...new Set(sql.match(/\w+/g))].filter((word) => tableNames.has(word));
  readBy.set(sql, tables);
  return tables;
}

const tablesOf = new Map<string, string>();

/** The table that a changing statement changes. */
function tableOf(sql: string): string {
  const known = tablesOf.get(sql);
  if (known !== undefined) return known;
  const table = /^\s*(?:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM)\s+(\w+)/i.exec(sql)?.[1];
  if (table === undefined) throw new Error(`which table does this change? ${sql}`);
  tablesOf.set(sql, table);
  return table;
}

/** What a statement answered, and how often its tables had been changed then. */
interface Answer {
  readonly rows: unknown[];
  readonly stamp: number;
  /** The newest transaction after which this was known to hold. */
  seenAt: number;
}

/** One agent's database, as it lies on its disk. */
export class StoredJournal {
  private held = emptied();
  private transactions: Statement[][] = [];
  /** Of the transaction that runs: the tables it has changed so far. */
  private changing: Set<string> | undefined;
  /** How often each table was changed. */
  private readonly changes = new Map<string, number>();
  private readonly answers = new Map<string, { readonly tables: readonly string[]; of: Map<Value, Answer> }>();

  /** For looking only. Most looks find what the one before found, so answers are kept until one of their tables changes. */
  readonly read: Pick<Journal, "all" | "get"> = {
    all: <Row>(sql: string, ...values: Value[]) => [...this.rows<Row>(sql, values)],
    get: <Row>(sql: string, ...values: Value[]) => this.rows<Row>(sql, values)[0],
  };

  private rows<Row>(sql: string, values: Value[]): Row[] {
    let asked = this.answers.get(sql);
    if (asked === undefined) {
      asked = { tables: tablesRead(sql), of: new Map() };
      this.answers.set(sql, asked);
    }
    const { changing, changes } = this;
    if (changing !== undefined && asked.tables.some((table) => changing.has(table))) {
      return this.held.journal.all<Row>(sql, ...values);
    }
    const key = values.length === 1 ? (values[0] as Value) : values.join("\n");
    const known = asked.of.get(key);
    if (known?.seenAt === this.transactions.length) return known.rows as Row[];
    let stamp = 0;
    for (const table of asked.tables) stamp += changes.get(table) ?? 0;
    if (known?.stamp === stamp) {
      known.seenAt = this.transactions.length;
      return known.rows as Row[];
    }
    const rows = this.held.journal.all<Row>(sql, ...values);
    asked.of.set(key, { stamp, rows, seenAt: this.transactions.length });
    return rows;
  }

  /** How many transactions were committed in it. */
  get length(): number {
    return this.transactions.length;
  }

  /** Runs one; answers which tables it changed as well. */
  commit<T>(work: (run: Journal["run"]) => T): { result: T; tables: ReadonlySet<string> } {
    const { journal } = this.held;
    let statements: Statement[] = [];
    let tables = new Set<string>();
    const run: Journal["run"] = (sql, ...values) => {
      statements.push({ sql, values });
      tables.add(tableOf(sql));
      return journal.run(sql, ...values);
    };
    try {
      const result = journal.transaction(() => {
        statements = [];
        tables = new Set();
        this.changing = tables;
        return work(run);
      });
      this.transactions.push(statements);
      for (const table of tables) this.changes.set(table, (this.changes.get(table) ?? 0) + 1);
      return { result, tables };
    } finally {
      this.changing = undefined;
    }
  }

  /** Puts the database back to what it was after its first `length` transactions. */
  rollBack(length: number): void {
    const kept = this.transactions.slice(0, length);
    this.close();
    this.held = emptied();
    this.transactions = [];
    this.answers.clear();
    for (const statements of kept) {
      this.commit((run) => {
        for (const { sql, values } of statements) run(sql, ...values);
      });
    }
  }

  /** Gives the database back, emptied. */
  close(): void {
    const { database } = this.held;
    for (const { name } of database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all() as {
      name: string;
    }[]) {
      database.exec(`DELETE FROM ${name}`);
    }
    spare.push(this.held);
  }
}
