// An agent's jobs by name, and by the name of the MigrationJob that each was made for: what is left of one that was deleted is
// found without a look at all others.

import { keyOfAgentJob } from "../domain/names.ts";
import type { JobView } from "../wire/schemas.ts";

export class JobRows extends Map<string, JobView> {
  readonly #byMigrationJob = new Map<string, Set<string>>();

  /** Those made for a MigrationJob of this name, whatever its UID. */
  of(migrationJob: string): readonly JobView[] {
    return [...(this.#byMigrationJob.get(migrationJob) ?? [])].flatMap((name) => this.get(name) ?? []);
  }

  override set(name: string, view: JobView): this {
    const key = keyOfAgentJob(name);
    if (key !== undefined) this.#byMigrationJob.set(key.name, this.#namesOf(key.name).add(name));
    return super.set(name, view);
  }

  override delete(name: string): boolean {
    const key = keyOfAgentJob(name);
    if (key !== undefined) {
      const names = this.#namesOf(key.name);
      names.delete(name);
      if (names.size === 0) this.#byMigrationJob.delete(key.name);
    }
    return super.delete(name);
  }

  #namesOf(migrationJob: string): Set<string> {
    return this.#byMigrationJob.get(migrationJob) ?? new Set();
  }
}
