// The ledger of jobs under way: which may be driven now, within the limits of the node and of each location. A job that
// waits before its next attempt takes no room, so one location that is down does not hold up the others.
import type { JobRow } from "./job-rows.ts";

export interface SlotLimits {
  readonly node: number;
  location(name: string): number;
}

export interface Slot {
  readonly row: JobRow;
  /** Aborted when the user wants something else of the job; a fresh one for each step. */
  stop: AbortController;
  isActive: boolean;
}

/** What a group's job has reserved on this node: its volumes here, to one location. */
export interface Reservation {
  readonly job: string;
  readonly location: string;
  /** UIDs of the volumes. */
  readonly owners: readonly string[];
}

interface Waiting {
  readonly isPossible: () => boolean;
  readonly go: () => void;
}

export class JobSlots {
  private readonly limits: SlotLimits;
  private readonly slots = new Map<string, Slot>();
  private readonly reservations = new Map<string, Reservation>();
  private readonly waiting: Waiting[] = [];

  constructor(limits: SlotLimits) {
    this.limits = limits;
  }

  find(name: string): Slot | undefined {
    return this.slots.get(name);
  }

  /** A slot for a job that has none, if there is room and no other job of its volume and location is under way. */
  take(row: JobRow): Slot | undefined {
    const isPairTaken = [...this.slots.values()].some((other) => isSamePair(other.row, row)) || this.isReserved(row);
    if (isPairTaken || !this.hasRoom(row.name, row.location)) return undefined;
    const slot = { row, stop: new AbortController(), isActive: true };
    this.slots.set(row.name, slot);
    return slot;
  }

  /** Makes room while the job waits for its next attempt. */
  pause(slot: Slot): void {
    slot.isActive = false;
    this.wake();
  }

  /** Resolves when there is room again, or when the signal ends the wait. */
  async resume(slot: Slot, signal: AbortSignal): Promise<void> {
    await this.wait(
      () => this.hasRoom(slot.row.name, slot.row.location),
      () => {
        slot.isActive = true;
      },
      signal,
    );
    // Whoever is asked to stop goes on at once, to do so.
    slot.isActive = true;
  }

  drop(slot: Slot): void {
    this.slots.delete(slot.row.name);
    this.wake();
  }

  /**
   * Reserves all of a group's volumes on this node at once, when no other job of any of them to this location is under
   * way and there is room; the same reservation again is given at once. Throws the signal's reason when it ends the wait.
   */
  async reserve(wanted: Reservation, signal: AbortSignal): Promise<void> {
    if (this.reservations.has(wanted.job)) return;
    signal.throwIfAborted();
    await this.wait(
      () => this.isFree(wanted),
      () => void this.reservations.set(wanted.job, wanted),
      signal,
    );
    if (this.reservations.has(wanted.job)) return;
    throw signal.reason;
  }

  /** The job whose being under way keeps a reservation from being made, if one does. */
  inTheWayOf({ job, location, owners }: Reservation): string | undefined {
    const slot = [...this.slots.values()].find(({ row }) => row.location === location && owners.includes(row.owner));
    const others = [...this.reservations.values()].filter((other) => other.job !== job && other.location === location);
    return slot?.row.name ?? others.find((other) => other.owners.some((owner) => owners.includes(owner)))?.job;
  }

  release(job: string): void {
    if (this.reservations.delete(job)) this.wake();
  }

  private isFree(wanted: Reservation): boolean {
    return this.inTheWayOf(wanted) === undefined && this.hasRoom(wanted.job, wanted.location);
  }

  private isReserved({ owner, location, name }: JobRow): boolean {
    return this.inTheWayOf({ job: name, location, owners: [owner] }) !== undefined;
  }

  /** `take` runs in the turn that finds it possible, so that two who wait for the same room do not both get it. */
  private async wait(isPossible: () => boolean, take: () => void, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const go = () => {
      take();
      resolve();
    };
    const entry: Waiting = { isPossible, go };
    this.waiting.push(entry);
    const giveUp = () => resolve();
    signal.addEventListener("abort", giveUp, { once: true });
    this.wake();
    if (signal.aborted) giveUp();
    await promise;
    signal.removeEventListener("abort", giveUp);
    const at = this.waiting.indexOf(entry);
    if (at >= 0) this.waiting.splice(at, 1);
  }

  private wake(): void {
    for (const entry of [...this.waiting]) {
      if (!entry.isPossible()) continue;
      this.waiting.splice(this.waiting.indexOf(entry), 1);
      entry.go();
    }
  }

  /** A group's job counts once on a node, whether it is coordinated there, has volumes there, or both. */
  hasRoom(name: string, location: string): boolean {
    const active = new Map<string, string>();
    for (const { row, isActive } of this.slots.values()) if (isActive) active.set(row.name, row.location);
    for (const reservation of this.reservations.values()) active.set(reservation.job, reservation.location);
    active.delete(name);
    const there = [...active.values()].filter((other) => other === location);
    return active.size < this.limits.node && there.length < this.limits.location(location);
  }
}

function isSamePair(left: JobRow, right: JobRow): boolean {
  return left.owner === right.owner && left.location === right.location;
}
