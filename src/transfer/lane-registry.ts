// The tickets and the open lanes of a server, whatever carries them.
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { LaneBinding, LaneSink } from "./lane.ts";
import type { ToTarget } from "./lane-messages.ts";
import type { LaneSignals } from "./lane-signals.ts";
import { type Admission, LaneTickets } from "./lane-tickets.ts";
import { TargetLane } from "./target-lane.ts";

export interface LaneRegistryOptions {
  readonly clock: Clock;
  readonly dice: Dice;
  readonly writesInFlightMax: number;
  /** A lane broke; called once for a lane, never for one that {@link LaneRegistry.closeLanes} closed. */
  onLaneError(owner: string, lane: number, error: Error): void;
}

export class LaneRegistry {
  readonly #options: LaneRegistryOptions;
  readonly #tickets: LaneTickets;
  readonly #lanes = new Map<TargetLane, LaneBinding>();

  constructor(options: LaneRegistryOptions) {
    this.#options = options;
    this.#tickets = new LaneTickets(options.clock, options.dice);
  }

  issue(binding: LaneBinding, sink: LaneSink): string {
    return this.#tickets.issue(binding, sink);
  }

  /** Uses the ticket up; throws `TicketRefused`. No cluster is given where nobody proves to be of one. */
  redeem(ticket: string, peerClusterUid?: string): Admission {
    return this.#tickets.redeem(ticket, peerClusterUid);
  }

  /** The lane that a ticket opened, to be called in the same turn as {@link redeem}, or closing its owner's lanes would miss it. */
  open(
    { binding, sink }: Admission,
    thread: { readonly signals: LaneSignals; post(message: ToTarget, transfer?: ArrayBuffer[]): void },
  ): TargetLane {
    const onBroken = (error: Error) => {
      sink.broken?.(error);
      this.#options.onLaneError(binding.owner, binding.lane, error);
    };
    const lane = new TargetLane({ sink, onBroken, writesInFlightMax: this.#options.writesInFlightMax, ...thread });
    this.#lanes.set(lane, binding);
    void lane.joined.then(() => this.#lanes.delete(lane));
    return lane;
  }

  async closeLanes(owner: string): Promise<void> {
    this.#tickets.revoke(owner);
    const lanes = [...this.#lanes].filter(([, binding]) => binding.owner === owner);
    await Promise.all(lanes.map(([lane]) => lane.stop()));
  }

  async closeAll(): Promise<void> {
    this.#tickets.revokeAll();
    await Promise.all([...this.#lanes.keys()].map((lane) => lane.stop()));
  }
}
