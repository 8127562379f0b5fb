// Snapshots of several volumes at one moment, wherever in the storage cluster they are: all are frozen, then all snapshotted,
// then all thawed, and only if every thaw confirms that nothing could be written in between do the snapshots count. That is
// decided at one home, the decider, by confirming there first (src/domain/group-snapshot.ts); so whoever asks, however often, and
// whichever agent dies, either all of them count in the end or none does.

import { describe, isRetryable, LongshoreError } from "../domain/errors.ts";
import { decideGroupStep, decideLeftover, type GroupPart, inOrder } from "../domain/group-snapshot.ts";
import type { GroupSnapshotPart, Holdings, Thawed } from "../wire/member.ts";
import type { GroupSnapshotSpec, GroupSnapshotView, SnapshotView } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import { type GroupParts, isGone } from "./group-parts.ts";

/** After so many times the longest freeze nobody is still at it: then what was left is confirmed or dropped. */
const freezesUntilLeft = 3;

/** A volume at its home. */
interface Homed extends GroupPart {
  readonly view: SnapshotView | undefined;
}

export class GroupSnapshots {
  private readonly core: Core;
  private readonly parts: GroupParts;
  /** When leftover group points were first seen, or last looked into, on the monotonic clock. */
  private readonly seenMs = new Map<string, number>();
  private readonly settling = new Set<string>();

  constructor(core: Core, parts: GroupParts) {
    this.core = core;
    this.parts = parts;
  }

  /** See AgentApi.putGroupSnapshot. */
  put(group: string, name: string, { volumes }: GroupSnapshotSpec): Promise<GroupSnapshotView> {
    return this.core.lock.run(`group ${group} snapshot ${name}`, async () => {
      this.core.members.checkWelcome();
      this.core.members.checkAcquainted();
      const homed = await this.locate(volumes, name);
      const step = decideGroupStep(group, name, homed);
      switch (step.kind) {
        case "taken":
          throw new LongshoreError("NameTaken", step.reason);
        case "done":
          return viewOf({ group, name, groupPoint: step.groupPoint }, volumes, homed);
        case "confirm":
          await this.confirm(step.agentIds, { group, name, groupPoint: step.groupPoint });
          return viewOf({ group, name, groupPoint: step.groupPoint }, volumes, await this.locate(volumes, name));
        case "discard":
          for (const groupPoint of step.groupPoints) {
            for (const agentId of homesOf(homed)) await this.api(agentId).discardGroup({ group, name, groupPoint });
          }
      }
      const part = { group, name, groupPoint: this.core.dice.hex(16) };
      await this.take(part, homed);
      return viewOf(part, volumes, await this.locate(volumes, name));
    });
  }

  /** Now and then: finds out what becomes of parts here whose coordinator does not come back. */
  expire(): void {
    const { clock, limits, tasks } = this.core;
    const left = this.parts.leftovers();
    const now = clock.monotonicMs();
    for (const groupPoint of this.seenMs.keys()) {
      if (!left.some((part) => part.groupPoint === groupPoint)) this.seenMs.delete(groupPoint);
    }
    for (const part of left) {
      const since = this.seenMs.get(part.groupPoint) ?? now;
      this.seenMs.set(part.groupPoint, since);
      if (now - since < freezesUntilLeft * limits.freezeMs || this.settling.has(part.groupPoint)) continue;
      this.settling.add(part.groupPoint);
      tasks.spawn(`settle group point ${part.groupPoint}`, () => this.settle(part));
    }
  }

  private async take(part: GroupSnapshotPart, homed: readonly Homed[]): Promise<void> {
    const agentIds = homesOf(homed);
    const failure = await this.attempt(part, homed);
    if (failure !== undefined) {
      await this.discardEverywhere(agentIds, part);
      throw failure;
    }
    const [decider = "", ...others] = agentIds;
    try {
      // From here on only the decider knows whether the snapshots count, until it has answered.
      await this.confirm([decider], part);
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.discardEverywhere(agentIds, part);
      throw invalid(part, describe(error), error);
    }
    await this.confirm(others, part);
    this.core.log.info({ ...part, volumes: homed.map(({ volume }) => volume) }, "group snapshot taken");
  }

  /** Freezes, snapshots and thaws all; why the snapshots must not count, if there is a reason. */
  private async attempt(part: GroupSnapshotPart, homed: readonly Homed[]): Promise<LongshoreError | undefined> {
    const { group, groupPoint } = part;
    const timeoutMs = this.core.limits.freezeMs;
    const agentIds = homesOf(homed);
    const volumesAt = (id: string) => homed.filter(({ agentId }) => agentId === id).map(({ volume }) => volume);
    let failure: LongshoreError | undefined;
    try {
      await this.inTime("freezing and snapshotting", async () => {
        await Promise.all(
          agentIds.map((id) => this.api(id).freeze({ group, groupPoint, volumes: volumesAt(id), timeoutMs })),
        );
        await Promise.all(agentIds.map((id) => this.api(id).snapshotFrozen(part)));
      });
    } catch (error) {
      failure = reasonOf(part, error);
    }
    // One that was forgotten meanwhile has no connection any more; the others are thawed all the same.
    const thaws = agentIds.map(async (id) => this.api(id).thaw({ group, groupPoint }));
    const problem = await this.inTime("thawing", () => Promise.all(thaws)).then(
      (thawed) => brokenAt(agentIds, thawed),
      (error: unknown) => describe(error),
    );
    return failure ?? (problem === undefined ? undefined : invalid(part, problem));
  }

  private async confirm(agentIds: readonly string[], part: GroupSnapshotPart): Promise<void> {
    await Promise.all(agentIds.map((id) => this.api(id).confirmGroup(part)));
  }

  /** In order, the decider first. Where that fails the parts go by themselves, later. */
  private async discardEverywhere(agentIds: readonly string[], part: GroupSnapshotPart): Promise<void> {
    try {
      await this.inTime("discarding", async () => {
        for (const id of agentIds) await this.api(id).discardGroup(part);
      });
    } catch (error) {
      this.core.log.warn({ ...part, err: error }, "parts of a group snapshot are left, to be dropped later");
    }
  }

  /** The home of each volume, and what it has under `name`. */
  private async locate(volumes: readonly string[], name: string): Promise<Homed[]> {
    const agentIds = this.core.members.counting();
    const answers = await Promise.allSettled(agentIds.map((id) => this.api(id).holdings({ volumes: [...volumes] })));
    const silent = agentIds.filter((_, index) => answers[index]?.status === "rejected");
    const held = answers.flatMap((answer, index) =>
      answer.status === "fulfilled" ? partsAt(agentIds[index] ?? "", name, answer.value) : [],
    );
    return volumes.map((volume) => {
      const [home, other] = held.filter((part) => part.volume === volume);
      if (other !== undefined) {
        const text = `volume ${volume} is on agents ${home?.agentId} and ${other.agentId}; a group needs names that are not used twice`;
        throw new LongshoreError("BadRequest", text);
      }
      if (home !== undefined) return home;
      if (silent.length === 0) throw new LongshoreError("NotFound", `volume ${volume} does not exist`);
      const text = `volume ${volume} may be on ${silent.join(", ")}, not answering; one that will not come back is given up by: longshore node forget`;
      throw new LongshoreError("Unreachable", text);
    });
  }

  private async settle(part: GroupSnapshotPart): Promise<void> {
    const { members, agentId, log, clock } = this.core;
    try {
      const others = members.counting().filter((id) => id !== agentId);
      const told = await Promise.all(others.map(async (id) => ({ agentId: id, has: await this.hasOf(id, part) })));
      const decision = decideLeftover(agentId, told);
      if (decision === "confirm") await this.parts.confirm(part);
      else if (decision === "drop") await this.parts.discard(part);
      log.info({ ...part, decision }, "what was left of a group snapshot was looked into");
    } catch (error) {
      log.info({ ...part, problem: describe(error) }, "what is left of a group snapshot has to wait");
    } finally {
      this.seenMs.set(part.groupPoint, clock.monotonicMs());
      this.settling.delete(part.groupPoint);
    }
  }

  private async hasOf(
    agentId: string,
    { groupPoint }: GroupSnapshotPart,
  ): Promise<"confirmed" | "pending" | "nothing"> {
    const { volumes } = await this.api(agentId).holdings({ volumes: [], groupPoint });
    const found = volumes.flatMap(({ snapshots }) => snapshots.filter((one) => one.groupPoint === groupPoint));
    if (found.length === 0) return "nothing";
    return found.some(isConfirmed) ? "confirmed" : "pending";
  }

  private api(agentId: string) {
    return this.core.members.api(agentId);
  }

  private async inTime<T>(what: string, work: () => Promise<T>): Promise<T> {
    const { clock, limits } = this.core;
    const done = new AbortController();
    const late = clock.sleep(limits.freezeMs, done.signal).then(() => {
      throw new LongshoreError("Timeout", `${what} took longer than ${limits.freezeMs} ms`);
    });
    try {
      return await Promise.race([work(), late]);
    } finally {
      late.catch(() => undefined);
      done.abort();
    }
  }
}

function homesOf(homed: readonly Homed[]): string[] {
  return inOrder(homed.map(({ agentId }) => agentId));
}

function partsAt(agentId: string, name: string, { volumes }: Holdings): Homed[] {
  return volumes.map(({ name: volume, snapshots }) => {
    const view = snapshots.find((snapshot) => snapshot.name === name);
    const { group, groupPoint } = view ?? {};
    const isPart = view !== undefined && group !== undefined && groupPoint !== undefined;
    return {
      volume,
      agentId,
      view,
      snapshot: isPart ? { group, groupPoint, isConfirmed: isConfirmed(view) } : undefined,
    };
  });
}

function isConfirmed({ state }: SnapshotView): boolean {
  return state !== "creating";
}

function viewOf(
  { group, name, groupPoint }: GroupSnapshotPart,
  volumes: readonly string[],
  homed: readonly Homed[],
): GroupSnapshotView {
  const snapshots = volumes.map((volume) => {
    const view = homed.find((part) => part.volume === volume)?.view;
    if (view === undefined || !isConfirmed(view)) {
      throw new LongshoreError(
        "SnapshotGone",
        `snapshot ${name} of volume ${volume} is gone; take a new one of the group`,
      );
    }
    if (view.released || view.state === "deleting") {
      throw new LongshoreError("SnapshotDeleting", `snapshot ${name} of volume ${volume} is being deleted`);
    }
    return view;
  });
  return { group, name, groupPoint, snapshots, frozenMs: Math.max(...snapshots.map(({ stallMs }) => stallMs)) };
}

function brokenAt(agentIds: readonly string[], thawed: readonly Thawed[]): string | undefined {
  const broken = agentIds.filter((_, index) => thawed[index]?.wasFrozen !== true);
  return broken.length === 0 ? undefined : `not everything stayed frozen on ${broken.join(", ")}`;
}

/** What will fail again is told as it is; everything else is worth another try. */
function reasonOf(part: GroupSnapshotPart, error: unknown): LongshoreError {
  if (error instanceof LongshoreError && !isRetryable(error)) return error;
  return invalid(part, describe(error), error);
}

function invalid({ group, name }: GroupSnapshotPart, why: string, cause?: unknown): LongshoreError {
  return new LongshoreError("GroupInvalid", `snapshot ${name} of group ${group} was not taken: ${why}`, { cause });
}
