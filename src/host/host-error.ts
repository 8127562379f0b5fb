// What goes wrong on the node itself, in words for people.
import { errnoOf } from "../base/system-error.ts";

/** A tool or a system call of the node did not do what was asked, or found something that it must not touch. */
export class HostError extends Error {
  override readonly name = "HostError";
}

/** Runs one step on the node; a system call that fails in it is a {@link HostError} that names the step. */
export async function attempt<T>(step: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    throw new HostError(`cannot ${step}`, { cause: error });
  }
}
