// A staging image while it is made of its base. On some backends that is a whole copy, so it is done without a lock: what it reads
// is sealed, and open, so neither a change nor the deletion of the base reaches it. It belongs to a plan and to no term: until
// whoever freezes next finds it made, its row says that it is not, and it is made anew after a crash.
import { LongshoreError } from "../domain/errors.ts";

export type MakingResult = { readonly kind: "made" } | { readonly kind: "failed"; readonly error: unknown };

export class StagingMaking {
  /** Resolves when it has ended, and never rejects. */
  readonly done: Promise<void>;
  /** Undefined before it has ended. */
  result: MakingResult | undefined;
  private readonly stopping = new AbortController();

  /** Begins at once. */
  constructor(make: (signal: AbortSignal) => Promise<void>) {
    this.done = this.run(make);
  }

  /** Ends it where it is; resolves when nothing of it is under way any more. */
  async stop(): Promise<void> {
    this.stopping.abort(new LongshoreError("Cancelled", "the staging image is not wanted any more"));
    await this.done;
  }

  private async run(make: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await make(this.stopping.signal);
      this.result = { kind: "made" };
    } catch (error) {
      this.result = { kind: "failed", error };
    }
  }
}
