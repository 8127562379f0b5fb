// Lanes without a network: a ticket leads straight to its sink. Faults are injected per piece by the test.
import { createHash } from "node:crypto";
import { LongshoreError } from "../../src/domain/errors.ts";
import type {
  Lane,
  LaneBinding,
  LaneDialer,
  LaneServer,
  LaneSink,
  LaneTarget,
  LaneUnit,
} from "../../src/transfer/lane.ts";

const unitHeaderBytes = 16;
const pieceBytesMax = 1 << 20;

/** A part of a unit's payload, and where it belongs. */
export interface Piece {
  readonly unit: number;
  readonly offset: number;
  readonly length: number;
}

export interface LaneFaults {
  /** May throw (the lane tears) or change the payload (it arrives damaged). */
  onPiece?: (piece: Piece, payload: Uint8Array) => Uint8Array | Promise<Uint8Array>;
}

interface OpenLane {
  readonly binding: LaneBinding;
  /** Closes it on purpose: the sink is not told. */
  readonly shut: () => void;
  readonly inFlight: Set<Promise<unknown>>;
}

export class FakeLanes implements LaneServer, LaneDialer {
  readonly address: string;
  readonly faults: LaneFaults = {};
  private readonly tickets = new Map<string, { binding: LaneBinding; sink: LaneSink }>();
  private readonly open_ = new Set<OpenLane>();
  private issued = 0;

  constructor(address: string) {
    this.address = address;
  }

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

  async open(to: Pick<LaneTarget, "ticket" | "source" | "hasDigests">): Promise<Lane> {
    const bound = this.tickets.get(to.ticket);
    this.tickets.delete(to.ticket);
    if (bound === undefined) throw new LongshoreError("TicketRefused", "the ticket is not known");
    const { binding, sink } = bound;
    let failure: Error | undefined;
    let bytesSent = 0;
    const inFlight = new Set<Promise<unknown>>();
    const end = (reason: Error) => {
      failure ??= new LongshoreError("StreamTorn", reason.message);
      this.open_.delete(entry);
    };
    const destroy = async (reason: Error) => {
      if (failure === undefined) sink.broken?.(reason);
      end(reason);
    };
    const entry: OpenLane = { binding, inFlight, shut: () => end(new Error("closed by the target")) };
    this.open_.add(entry);
    const deliver = async ({ index, extents }: LaneUnit) => {
      const hash = createHash("sha256");
      sink.begin(index);
      for (const piece of piecesOf(index, extents)) {
        const payload = new Uint8Array(piece.length);
        await to.source.read(piece.offset, payload);
        hash.update(payload);
        const arriving = (await this.faults.onPiece?.(piece, payload)) ?? payload;
        if (failure !== undefined) throw failure;
        bytesSent += piece.length;
        await sink.write(index, piece.offset, arriving);
      }
      sink.arrived(index);
      return to.hasDigests ? hash.digest("hex") : undefined;
    };
    let tail: Promise<unknown> = Promise.resolve();
    return {
      get bytesSent() {
        return bytesSent;
      },
      async send(unit) {
        const turn = tail.then(() => {
          if (failure !== undefined) throw failure;
          bytesSent += unitHeaderBytes;
          return deliver(unit);
        });
        tail = turn.catch(() => undefined);
        inFlight.add(turn);
        try {
          return await turn;
        } catch (error) {
          await destroy(error instanceof Error ? error : new Error(String(error)));
          throw new LongshoreError("StreamTorn", "the lane tore", { cause: error });
        } finally {
          inFlight.delete(turn);
        }
      },
      close: async () => void this.open_.delete(entry),
      destroy,
    };
  }
}

function* piecesOf(unit: number, extents: LaneUnit["extents"]): Generator<Piece> {
  for (const [start, length] of extents) {
    for (let done = 0; done < length; done += pieceBytesMax) {
      yield { unit, offset: start + done, length: Math.min(pieceBytesMax, length - done) };
    }
  }
}
