// What an agent's journal says while no agent runs on it. It is read from a copy: to open it where it lies would do work
// that is the next agent's.
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { temporaryFolder } from "../fakes/temporary-folder.ts";

/** The rows that `sql` selects in the journal of a dead agent. */
export async function readJournal<Row>(dataDir: string, sql: string, ...values: string[]): Promise<Row[]> {
  const folder = await temporaryFolder("journal");
  try {
    for (const name of ["state.db", "state.db-wal"]) {
      await copyFile(join(dataDir, name), join(folder.path, name)).catch((error: NodeJS.ErrnoException) => {
        // Without a write-ahead log everything is in the file itself.
        if (error.code !== "ENOENT" || name === "state.db") throw error;
      });
    }
    const journal = new DatabaseSync(join(folder.path, "state.db"));
    try {
      return journal.prepare(sql).all(...values) as Row[];
    } finally {
      journal.close();
    }
  } finally {
    await folder.remove();
  }
}
