// What every part of the engine shares: the journal, the locks, the change feed and the background work.
import type { KeyedLock } from "../base/keyed-lock.ts";
import type { TaskGroup } from "../base/task-group.ts";
import { describe, errorTable, LongshoreError } from "../domain/errors.ts";
import type { Problem } from "../wire/schemas.ts";
import type { ChangeFeed } from "./changes.ts";
import type { EngineOptions } from "./engine-options.ts";
import type { Journal } from "./journal.ts";
import type { Members } from "./members.ts";

export interface Core extends EngineOptions {
  readonly agentId: string;
  readonly journal: Journal;
  /** Serializes what changes one volume or migrated volume; keys are their UIDs. */
  readonly lock: KeyedLock;
  readonly feed: ChangeFeed;
  readonly tasks: TaskGroup;
  /** The agents of the own cluster. */
  readonly members: Members;
}

/** Closes the lanes of a migrated volume, on every transport; resolves when none of them writes any more. */
export async function closeLanes({ lanes }: Core, uid: string): Promise<void> {
  await Promise.all(Object.values(lanes).map((server) => server.closeLanes(uid)));
}

/** Milliseconds since the epoch as the API writes them. */
export function timeText(ms: number): string {
  return new Date(ms).toISOString();
}

/** An error as the API shows it. */
export function problemOf(error: unknown): Problem {
  const code = error instanceof LongshoreError ? error.code : "Internal";
  const row = error instanceof LongshoreError ? errorTable[error.code] : undefined;
  return {
    type: `urn:longshore:problem:${code}`,
    title: code,
    status: row?.http ?? 500,
    detail: describe(error),
    code,
    advice: row?.advice ?? "This is a defect; report it with the agent's log.",
  };
}

/** Throws `PreconditionFailed` unless the caller decided on the present revision. */
export function checkRevision(what: string, present: number, ifMatch: number | undefined): void {
  if (ifMatch === undefined || ifMatch === present) return;
  throw new LongshoreError("PreconditionFailed", `${what} is at revision ${present}, not ${ifMatch}`);
}

/** Runs one piece of what a start has to do; a failure is logged, and does not keep the agent from starting. */
export async function guarded(core: Core, what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    core.log.error({ err: error, what }, "left as it is until it is asked for again");
  }
}
