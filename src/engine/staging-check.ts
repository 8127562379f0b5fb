// What an earlier process has stored is read again before it is trusted: a crash or an old disk may have taken it. That may take
// hours, so it is done without a lock; whoever ends the term under which it is done stops it first. What was found to be right
// stays so for as long as this process lives, so it comes to its end however often it is stopped.
import { severally } from "../base/severally.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { StagingSession, StoredUnit } from "./staging-session.ts";

/** Units that are read at once: more than there are threads that read, so that none of them waits. */
const unitsAtOnce = 16;

export type CheckResult =
  | { readonly kind: "right" }
  /** Something is not as it was recorded. */
  | { readonly kind: "lost" }
  | { readonly kind: "failed"; readonly error: unknown };

export class StagingCheck {
  /** For nothing else before the check has ended. */
  readonly session: StagingSession;
  /** Resolves when it has ended, and never rejects. */
  readonly done: Promise<void>;
  /** Undefined before it has ended. */
  result: CheckResult | undefined;
  private readonly stored: readonly StoredUnit[];
  private readonly found: Set<number>;
  private isStopped = false;

  /** Begins at once. `found`: units that were right before; others are added as they are found. */
  constructor(session: StagingSession, { stored, found }: { stored: readonly StoredUnit[]; found: Set<number> }) {
    this.session = session;
    this.stored = stored;
    this.found = found;
    this.done = this.run();
  }

  /** Ends it where it is; resolves when nothing of it is under way any more, and the image is closed. */
  async stop(): Promise<void> {
    this.isStopped = true;
    await this.done;
    await this.session.close();
  }

  private async run(): Promise<void> {
    try {
      this.result = { kind: (await this.isAsRecorded()) ? "right" : "lost" };
    } catch (error) {
      this.result = { kind: "failed", error };
    }
  }

  private async isAsRecorded(): Promise<boolean> {
    let isRight = true;
    const unread = this.stored.filter(({ unit }) => !this.found.has(unit));
    await severally(unread, unitsAtOnce, async (one) => {
      if (this.isStopped) throw new LongshoreError("TermLost", "the term ended while stored units were read again");
      if (!isRight) return;
      if (!(await this.isHeld(one))) {
        isRight = false;
        return;
      }
      // Digests are of data. Holes are punched once more: that is cheaper than to see whether they still are there.
      await this.session.punchAgain(one.unit);
      this.found.add(one.unit);
    });
    if (isRight) await this.session.sync();
    return isRight;
  }

  /** What was not read back then cannot be compared now. */
  private async isHeld({ unit, digest, verified }: StoredUnit): Promise<boolean> {
    return verified !== "none" && (await this.session.digestOf(unit, verified)).digest === digest;
  }
}
