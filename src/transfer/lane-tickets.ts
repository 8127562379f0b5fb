// Lane tickets: single use, short-lived, bound to one job's lane and one peer. They live in memory only, for a restart
// ends every lane anyway.
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { LaneBinding, LaneSink } from "./lane.ts";
import { ticketBytes } from "./lane-codec.ts";

export const ticketLifeMs = 60_000;
/** Tickets that wait to be used; past this, jobs ask again later. */
export const ticketsMax = 4096;

export interface Admission {
  readonly binding: LaneBinding;
  readonly sink: LaneSink;
}

export class LaneTickets {
  readonly #clock: Clock;
  readonly #dice: Dice;
  /** In the order of issue, which is the order of expiry. */
  readonly #waiting = new Map<string, Admission & { readonly expiresAtMs: number }>();

  constructor(clock: Clock, dice: Dice) {
    this.#clock = clock;
    this.#dice = dice;
  }

  /** Throws `TicketRefused` when too many wait. */
  issue(binding: LaneBinding, sink: LaneSink): string {
    this.#dropExpired();
    if (this.#waiting.size >= ticketsMax) {
      throw new LongshoreError("TicketRefused", `lane: ${ticketsMax} tickets are waiting to be used`);
    }
    const ticket = this.#dice.hex(ticketBytes);
    this.#waiting.set(ticket, { binding, sink, expiresAtMs: this.#clock.monotonicMs() + ticketLifeMs });
    return ticket;
  }

  /**
   * Uses a ticket up. One shown by another peer is used up as well: it is no secret any more. Without a peer, as where nobody
   * proves who he is, the ticket is all there is.
   * Throws `TicketRefused`, which does not tell an unknown ticket from one that was used.
   */
  redeem(ticket: string, peerClusterUid?: string): Admission {
    const found = this.#waiting.get(ticket);
    this.#waiting.delete(ticket);
    if (found === undefined) throw new LongshoreError("TicketRefused", "lane: the ticket is unknown, used or revoked");
    if (this.#clock.monotonicMs() >= found.expiresAtMs) {
      throw new LongshoreError("TicketRefused", "lane: the ticket has expired");
    }
    if (peerClusterUid !== undefined && found.binding.peerClusterUid !== peerClusterUid) {
      throw new LongshoreError("TicketRefused", `lane: the ticket is not for cluster ${peerClusterUid}`);
    }
    return found;
  }

  revoke(owner: string): void {
    for (const [ticket, { binding }] of this.#waiting) if (binding.owner === owner) this.#waiting.delete(ticket);
  }

  revokeAll(): void {
    this.#waiting.clear();
  }

  #dropExpired(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [ticket, { expiresAtMs }] of this.#waiting) {
      if (nowMs < expiresAtMs) return;
      this.#waiting.delete(ticket);
    }
  }
}
