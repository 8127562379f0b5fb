// Lanes without a network: a ticket leads straight to its sink. Faults are injected per frame by the test.
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Frame, Lane, LaneBinding, LaneDialer, LaneServer, LaneSink } from "../../src/transfer/lane.ts";

const frameHeaderBytes = 16;

export interface LaneFaults {
  /** May throw (the lane tears) or change the payload (it arrives damaged). */
  onFrame?: (frame: Frame, payload: Uint8Array) => Uint8Array | Promise<Uint8Array>;
}

interface OpenLane {
  readonly binding: LaneBinding;
  /** Closes it on purpose: the sink is not told. */
  readonly shut: () => void;
  readonly inFlight: Set<Promise<void>>;
}

export class FakeLanes implements LaneServer, LaneDialer {
  readonly address = "fake.lanes:1";
  readonly faults: LaneFaults = {};
  private readonly tickets = new Map<string, { binding: LaneBinding; sink: LaneSink }>();
  private readonly open_ = new Set<OpenLane>();
  private issued = 0;

  /** Lanes that neither side has closed. */
  get openLanes(): number {
    return this.open_.size;
  }

  issue(binding: LaneBinding, sink: LaneSink): string {
    this.issued += 1;
    const ticket = this.issued.toString(16).padStart(64, "0");
    this.tickets.set(ticket, { binding, sink });
    return ticket;
  }

  async closeLanes(owner: string): Promise<void> {
    for (const [ticket, { binding }] of this.tickets) if (binding.owner === owner) this.tickets.delete(ticket);
    const lanes = [...this.open_].filter((lane) => lane.binding.owner === owner);
    for (const lane of lanes) {
      lane.shut();
      await Promise.allSettled(lane.inFlight);
    }
  }

  async close(): Promise<void> {
    for (const { binding } of this.open_) await this.closeLanes(binding.owner);
  }

  async open({ ticket }: { ticket: string }): Promise<Lane> {
    const bound = this.tickets.get(ticket);
    this.tickets.delete(ticket);
    if (bound === undefined) throw new LongshoreError("TicketRefused", "the ticket is not known");
    const { binding, sink } = bound;
    let failure: Error | undefined;
    let bytesSent = 0;
    const inFlight = new Set<Promise<void>>();
    const end = (reason: Error) => {
      failure ??= new LongshoreError("StreamTorn", reason.message);
      this.open_.delete(entry);
    };
    const destroy = (reason: Error) => {
      if (failure === undefined) sink.broken?.(reason);
      end(reason);
    };
    const entry: OpenLane = { binding, inFlight, shut: () => end(new Error("closed by the target")) };
    this.open_.add(entry);
    const deliver = async (frame: Frame, payload: Uint8Array) => {
      const arriving = (await this.faults.onFrame?.(frame, payload)) ?? payload;
      if (failure !== undefined) throw failure;
      sink.accept(frame);
      await sink.write(frame.unit, frame.offset, arriving);
    };
    return {
      get bytesSent() {
        return bytesSent;
      },
      async send(frame, payload) {
        if (failure !== undefined) throw failure;
        bytesSent += frameHeaderBytes + payload.length;
        const delivery = deliver(frame, payload);
        inFlight.add(delivery);
        try {
          await delivery;
        } catch (error) {
          destroy(error instanceof Error ? error : new Error(String(error)));
          throw new LongshoreError("StreamTorn", "the lane tore", { cause: error });
        } finally {
          inFlight.delete(delivery);
        }
      },
      close: async () => void this.open_.delete(entry),
      destroy,
    };
  }
}
