// What an agent refuses is shown to people before it is thrown, so that it is tried again and is no secret meanwhile.
import { describe, errorTable, LongshoreError } from "../domain/errors.ts";

/** Runs the effect; gives the agent's failure instead of throwing it. Bugs, crashes and lost leadership are thrown. */
export async function refusalOf(effect: () => Promise<void>): Promise<LongshoreError | undefined> {
  try {
    await effect();
    return undefined;
  } catch (error) {
    if (error instanceof LongshoreError) return error;
    throw error;
  }
}

/** What went wrong and what to do next, for a condition or an event. */
export function explain(error: unknown): string {
  const what = describe(error);
  return error instanceof LongshoreError ? `${what}. ${errorTable[error.code].advice}` : what;
}
