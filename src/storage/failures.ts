// Runs what may fail on the disk, in the terms of those who call the storage.
import type { ErrorCode } from "../domain/errors.ts";
import { systemFailure } from "../domain/system-failure.ts";

/** Runs one step on the disk; what it throws is a {@link systemFailure}. */
export async function attempt<T>(step: string, work: () => T | Promise<T>, missing?: ErrorCode): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw systemFailure(step, error, missing);
  }
}
