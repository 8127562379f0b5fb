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

/** Runs the effect for all at once, each by itself; gives the first failure, once all have ended. */
export async function refusalOfAny<T>(
  all: readonly T[],
  effect: (each: T) => Promise<unknown>,
): Promise<LongshoreError | undefined> {
  const refusals = await Promise.all(
    all.map((each) =>
      refusalOf(async () => {
        await effect(each);
      }),
    ),
  );
  return refusals.find((refusal) => refusal !== undefined);
}

/** What went wrong and what to do next, for a condition or an event; {@link steady} beside what was said `before`. */
export function explain(error: unknown, before?: string): string {
  const what = describe(error);
  return steady(error instanceof LongshoreError ? `${what}. ${errorTable[error.code].advice}` : what, before);
}

/**
 * The text, or the one before it if they differ in nothing but numbers: free bytes, the id of a request. What is tried again and
 * again says something else each time then, and would have the status written each time.
 */
export function steady(text: string, before: string | undefined): string {
  return before !== undefined && withoutNumbers(text) === withoutNumbers(before) ? before : text;
}

/** Those in names are part of them: `vol-1` is not `vol-2`. */
function withoutNumbers(text: string): string {
  return text.replaceAll(/(?<![\w./:-])(?:\d+(?:\.\d+)?|[0-9a-f]{8,})(?![\w/:-]|\.\d)/g, "#");
}
