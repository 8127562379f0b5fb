// The coordinator's side of the barriers between source agents: everybody is ordered to a step, and nobody goes past it before
// all are there. Those that are there already are told again and again, so that they know that their coordinator lives.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { Order, ShareReport } from "../wire/member.ts";
import { errorOfProblem } from "../wire/problem.ts";
import type { Core } from "./core.ts";
import { withinLease } from "./interruptible.ts";
import type { JobViews } from "./job-views.ts";

const networkCodes: readonly (string | undefined)[] = ["Unreachable", "Timeout", "StreamTorn"];

export interface Barrier {
  readonly job: string;
  readonly order: Order;
  /** Agent ids of those that must reach it. */
  readonly who: readonly string[];
  /** Whether each is ordered only once the one before it has its room. */
  readonly isInTurn: boolean;
  readonly signal: AbortSignal;
}

/** What becomes of an order at one participant. */
interface Progress {
  /** It has its room, or is of an earlier version and does not tell. */
  hasRoom(): void;
  arrived(): void;
}

export class GroupOrders {
  private readonly core: Core;
  private readonly views: JobViews;
  /** Called with whatever a participant says. */
  private readonly onReport: (job: string, report: ShareReport) => void;

  constructor(core: Core, parts: { views: JobViews; onReport: (job: string, report: ShareReport) => void }) {
    this.core = core;
    this.views = parts.views;
    this.onReport = parts.onReport;
  }

  /** Asks everybody for a report; who does not answer has none. */
  async ask(
    job: string,
    who: readonly string[],
    signal: AbortSignal,
  ): Promise<Map<string, ShareReport | undefined | Error>> {
    const answers = await Promise.all(
      who.map(async (agentId): Promise<[string, ShareReport | undefined | Error]> => {
        try {
          const report = await withinLease(this.core, { agentId, signal }, (api) => api.shareReport(job));
          this.note(job, agentId, report);
          return [agentId, report];
        } catch (error) {
          signal.throwIfAborted();
          this.noteSilence(job, agentId, error);
          return [agentId, error instanceof Error ? error : new Error(String(error))];
        }
      }),
    );
    return new Map(answers);
  }

  /** Brings everybody to the order's step. Throws the first failure, and `Unreachable` for one that is silent for a lease. */
  async bring(barrier: Barrier): Promise<void> {
    const stop = new AbortController();
    const signal = AbortSignal.any([barrier.signal, stop.signal]);
    const missing = new Set(barrier.who);
    const all = Promise.withResolvers<void>();
    const arrive = (agentId: string) => {
      missing.delete(agentId);
      if (missing.size === 0) all.resolve();
    };
    if (missing.size === 0) return;
    const turns = [...barrier.who.keys()].map(() => Promise.withResolvers<void>());
    const lanes = barrier.who.map(async (agentId, index) => {
      if (barrier.isInTurn) await turns[index - 1]?.promise;
      const progress = { hasRoom: () => turns[index]?.resolve(), arrived: () => arrive(agentId) };
      return this.keepOrdering(agentId, { ...barrier, signal }, progress);
    });
    try {
      // None of them ends by itself but by failing.
      await Promise.race([all.promise, ...lanes]);
    } finally {
      stop.abort(new LongshoreError("Cancelled", "the barrier is decided"));
      for (const { resolve } of turns) resolve();
      await Promise.allSettled(lanes);
    }
  }

  /** Orders once; a participant that is not reached is left out, and told by its silence. Answers who did it. */
  async tell(barrier: Barrier): Promise<readonly string[]> {
    const told = await Promise.all(
      barrier.who.map(async (agentId) => {
        try {
          await this.bring({ ...barrier, who: [agentId] });
          return [agentId];
        } catch (error) {
          barrier.signal.throwIfAborted();
          this.core.log.warn({ job: barrier.job, agentId, err: error }, "participant not reached; it will ask");
          return [];
        }
      }),
    );
    return told.flat();
  }

  private async keepOrdering(agentId: string, barrier: Barrier, progress: Progress): Promise<never> {
    const { clock, limits } = this.core;
    let heardMs = clock.monotonicMs();
    for (;;) {
      let report: ShareReport;
      try {
        report = await withinLease(this.core, { agentId, signal: barrier.signal }, (api) =>
          api.order(barrier.job, barrier.order),
        );
      } catch (error) {
        barrier.signal.throwIfAborted();
        if (!networkCodes.includes(codeOf(error))) throw error;
        this.noteSilence(barrier.job, agentId, error);
        if (clock.monotonicMs() - heardMs >= limits.leaseMs) throw error;
        await clock.sleep(limits.retryDelayMs, barrier.signal);
        continue;
      }
      this.note(barrier.job, agentId, report);
      heardMs = clock.monotonicMs();
      // What it failed with may be of the network as well: that between it and the target, which is no silence.
      const isDone = isThere(report, barrier.order);
      if (isDone || report.isReserved !== false) progress.hasRoom();
      if (isDone) {
        progress.arrived();
        await clock.sleep(limits.leaseMs / 3, barrier.signal);
      } else if (report.state !== "running") await clock.sleep(limits.retryDelayMs, barrier.signal);
    }
  }

  private note(job: string, agentId: string, report: ShareReport | undefined): void {
    const heardAtMs = this.core.clock.nowMs();
    this.views.note(job, ({ participants }) => participants.set(agentId, { report, silence: null, heardAtMs }));
    if (report !== undefined) this.onReport(job, report);
  }

  private noteSilence(job: string, agentId: string, error: unknown): void {
    const silence = error instanceof Error ? error.message : String(error);
    this.views.note(job, ({ participants }) => {
      const known = participants.get(agentId);
      participants.set(agentId, { report: known?.report, heardAtMs: known?.heardAtMs ?? null, silence });
    });
  }
}

/** Throws what the participant failed with. */
function isThere(report: ShareReport, { step, end }: Order): boolean {
  const { state, finishedAs, problem, job } = report;
  if (state === "finished") {
    const isAsOrdered = step === "Released" ? finishedAs === "Succeeded" : step === "Ended";
    if (isAsOrdered) return true;
    throw new LongshoreError("Conflict", `${report.agentId} has ended ${job} as ${finishedAs}`);
  }
  if (state === "failed") {
    throw errorOfProblem(problem, `share of ${job}`) ?? new LongshoreError("Internal", `share of ${job} failed`);
  }
  // A suspended job is left without a run: nothing is under way, and nothing has failed.
  const isSuspended = step === "Ended" && end?.state === "Suspended" && report.step === null;
  return state === "idle" && (report.step === step || isSuspended);
}
