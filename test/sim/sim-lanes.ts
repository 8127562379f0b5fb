// Lanes of the simulator: ordered streams of units, in pieces that are slow, damaged, torn at either end, or cut by a partition.
import { createHash } from "node:crypto";
import { LongshoreError } from "../../src/domain/errors.ts";
import type {
  Lane,
  LaneBinding,
  LaneDialer,
  LaneExtent,
  LaneServer,
  LaneSink,
  LaneSource,
  LaneTarget,
  LaneUnit,
} from "../../src/transfer/lane.ts";
import type { Process } from "./host.ts";
import { flipped } from "./memory-disk.ts";
import type { World } from "./world.ts";

const windowPieces = 4;
const pieceBytes = 4096;
const idleMs = 20_000;

export class SimLanes implements LaneServer {
  readonly address: string;
  private readonly world: World;
  private readonly process: Process;
  private readonly tickets = new Map<string, { binding: LaneBinding; sink: LaneSink }>();
  private readonly lanes = new Set<SimLane>();
  private issued = 0;

  constructor(world: World, process: Process) {
    this.world = world;
    this.process = process;
    this.address = `${process.host.name}:2`;
  }

  issue(binding: LaneBinding, sink: LaneSink): string {
    this.issued += 1;
    const ticket = `${this.issued.toString(16)}0${Math.floor(this.world.timeline.nowMs).toString(16)}`.padStart(
      64,
      "0",
    );
    this.tickets.set(ticket, { binding, sink });
    return ticket;
  }

  async closeLanes(owner: string): Promise<void> {
    for (const [ticket, { binding }] of this.tickets) if (binding.owner === owner) this.tickets.delete(ticket);
    const lanes = [...this.lanes].filter((lane) => lane.binding.owner === owner);
    await Promise.all(lanes.map((lane) => lane.shut()));
  }

  async close(): Promise<void> {
    this.tickets.clear();
    await Promise.all([...this.lanes].map((lane) => lane.shut()));
  }

  died(): void {
    this.tickets.clear();
    for (const lane of this.lanes) lane.targetDied();
    this.lanes.clear();
  }

  dialer(): LaneDialer {
    return { open: (to, signal) => this.dial(to, signal) };
  }

  private async dial(to: LaneTarget, signal: AbortSignal): Promise<Lane> {
    const { world, process } = this;
    const host = world.hostAt(to.address);
    const torn = new LongshoreError("StreamTorn", `no lane to ${to.address}`);
    await world.timeline.pause(world.faults.latencyMs(), process);
    signal.throwIfAborted();
    const target = host?.process;
    const isCut =
      host === undefined || world.faults.isCut(process.host, host) || world.faults.isCut(host, process.host);
    if (target === undefined || isCut || world.faults.isLost()) {
      await world.timeline.pause(world.chance.between(5, 500), process);
      throw torn;
    }
    const bound = target.lanes.tickets.get(to.ticket);
    target.lanes.tickets.delete(to.ticket);
    if (bound === undefined) throw new LongshoreError("TicketRefused", "the ticket is not known");
    const lane = new SimLane(world, { source: process, target, from: to.source }, bound, () =>
      target.lanes.lanes.delete(lane),
    );
    target.lanes.lanes.add(lane);
    lane.breakWith(signal);
    return lane;
  }
}

/** One lane, both of its ends. */
class SimLane implements Lane {
  bytesSent = 0;
  readonly binding: LaneBinding;
  private readonly sink: LaneSink;
  private readonly world: World;
  private readonly source: Process;
  private readonly target: Process;
  private readonly from: LaneSource;
  private readonly forget: () => void;
  /** Pieces on their way. */
  private onTheWay = 0;
  private lastArrivalMs = 0;
  private readonly writing = new Set<Promise<void>>();
  /** Of each unit that has begun at the target: bytes that are still to be written. */
  private readonly left = new Map<number, number>();
  private torn: LongshoreError | undefined;
  /** What the source has been told. */
  private failure: LongshoreError | undefined;
  private isShut = false;
  private hasEnded = false;
  private wake = Promise.withResolvers<void>();
  private unlisten: () => void = () => undefined;
  /** The turn of the last unit; never rejects. */
  private tail: Promise<unknown> = Promise.resolve();
  private cancelIdle: () => void = () => undefined;

  constructor(
    world: World,
    ends: { source: Process; target: Process; from: LaneSource },
    { binding, sink }: { binding: LaneBinding; sink: LaneSink },
    forget: () => void,
  ) {
    this.world = world;
    this.source = ends.source;
    this.target = ends.target;
    this.from = ends.from;
    this.binding = binding;
    this.sink = sink;
    this.forget = forget;
    this.moved();
  }

  async send(unit: LaneUnit): Promise<string> {
    const turn = this.tail.then(() => this.sendInTurn(unit));
    this.tail = turn.catch(() => undefined);
    return turn;
  }

  /** In pieces, the first of which tells the unit; each may be lost with the connection, or damaged. */
  private async sendInTurn({ index, extents }: LaneUnit): Promise<string> {
    this.source.effect("unit");
    const hash = createHash("sha256");
    let isFirst = true;
    for (const [start, length] of extents) {
      for (let at = start; at < start + length; at += pieceBytes) {
        while (this.onTheWay >= windowPieces && this.failure === undefined) await this.wake.promise;
        if (this.failure !== undefined) throw this.failure;
        const content = Buffer.alloc(Math.min(pieceBytes, start + length - at));
        await this.from.read(at, content);
        hash.update(content);
        this.put({ unit: index, offset: at, content, announced: isFirst ? bytesOf(extents) : undefined });
        isFirst = false;
      }
    }
    return hash.digest("hex");
  }

  private put(piece: { unit: number; offset: number; content: Buffer; announced: number | undefined }): void {
    const { faults, chance, timeline } = this.world;
    this.bytesSent += (piece.announced === undefined ? 0 : 16) + piece.content.length;
    const content = chance.is(faults.wireFlips) ? flipped(piece.content, chance) : piece.content;
    this.onTheWay += 1;
    const isTorn = chance.is(faults.loss / 8) || faults.isCut(this.source.host, this.target.host);
    // In order, whatever each takes.
    this.lastArrivalMs = Math.max(this.lastArrivalMs, timeline.nowMs + faults.latencyMs());
    timeline.after(this.lastArrivalMs - timeline.nowMs, this.target, () => {
      this.onTheWay -= 1;
      if (isTorn) this.tear("the connection broke");
      else this.arrive({ ...piece, content });
      this.stir();
    });
  }

  async close(): Promise<void> {
    await this.tail;
    this.hasEnded = true;
    while ((this.onTheWay > 0 || this.writing.size > 0) && this.failure === undefined && !this.isShut) {
      await this.wake.promise;
    }
    await this.world.timeline.pause(this.world.faults.latencyMs(), this.source);
    if (this.failure !== undefined) throw this.failure;
    if (this.torn !== undefined || this.isShut) throw new LongshoreError("StreamTorn", "the lane was cut short");
    this.cancelIdle();
    this.unlisten();
    this.forget();
  }

  /** A signal made of others is kept, with all that listens to it, for as long as somebody does; so this ends with the lane. */
  breakWith(signal: AbortSignal): void {
    const breakLane = () => void this.destroy(new Error("the job stopped"));
    signal.addEventListener("abort", breakLane, { once: true });
    this.unlisten = () => signal.removeEventListener("abort", breakLane);
  }

  async destroy(reason: Error): Promise<void> {
    this.unlisten();
    this.failure ??= new LongshoreError("StreamTorn", "the lane was broken here", { cause: reason });
    this.stir();
    const { chance, timeline, faults } = this.world;
    // The target may learn it late, or by its own clock alone.
    if (chance.is(0.8)) timeline.after(faults.latencyMs(), this.target, () => this.tear("the source broke it"));
    await this.tail;
  }

  /** Closed on purpose at the target: resolves when no write is in flight any more. */
  async shut(): Promise<void> {
    this.isShut = true;
    this.cancelIdle();
    this.forget();
    this.tellSource("closed by the target");
    await Promise.allSettled(this.writing);
  }

  targetDied(): void {
    this.isShut = true;
    this.unlisten();
    this.cancelIdle();
    this.tellSource("the target died");
  }

  /** A lane that nothing moves on breaks by itself, at the target. */
  private moved(): void {
    this.cancelIdle();
    this.cancelIdle = this.world.timeline.after(idleMs, this.target, () => {
      if (this.writing.size > 0) this.moved();
      else this.tear(`nothing moved for ${idleMs} ms`);
    });
  }

  private arrive({ unit, offset, content, announced }: Parameters<SimLane["put"]>[0]): void {
    if (this.isShut || this.torn !== undefined) return;
    this.moved();
    try {
      if (announced !== undefined) this.begin(unit, announced);
    } catch (error) {
      return void this.tear(`refused: ${error}`);
    }
    const write = this.sink.write(unit, offset, content);
    this.writing.add(write);
    const done = () => {
      this.writing.delete(write);
      this.stir();
    };
    write.then(
      () => {
        done();
        this.written(unit, content.length);
      },
      (error: unknown) => {
        done();
        this.tear(`not written: ${error}`);
      },
    );
  }

  private begin(unit: number, announced: number): void {
    const planned = bytesOf(this.sink.begin(unit));
    if (planned !== announced) {
      throw new LongshoreError("BadRequest", `unit ${unit} is announced with ${announced} bytes and has ${planned}`);
    }
    this.left.set(unit, planned);
  }

  private written(unit: number, bytes: number): void {
    const left = (this.left.get(unit) ?? 0) - bytes;
    this.left.set(unit, left);
    // A lane that was shut meanwhile has no say any more.
    if (left === 0 && !this.isShut && this.torn === undefined) this.sink.arrived(unit);
  }

  private tear(why: string): void {
    if (this.torn !== undefined || this.isShut || (this.hasEnded && this.onTheWay === 0 && this.writing.size === 0))
      return;
    this.torn = new LongshoreError("StreamTorn", `lane: ${why}`);
    this.cancelIdle();
    this.forget();
    this.sink.broken?.(this.torn);
    this.target.engine?.laneFailed(this.binding.owner, this.binding.lane, this.torn);
    this.tellSource(why);
  }

  private tellSource(why: string): void {
    this.unlisten();
    const { timeline, faults } = this.world;
    timeline.after(faults.latencyMs(), this.source, () => {
      this.failure ??= new LongshoreError("StreamTorn", `lane: ${why}`);
      this.stir();
    });
  }

  private stir(): void {
    this.wake.resolve();
    this.wake = Promise.withResolvers<void>();
  }
}

function bytesOf(extents: readonly LaneExtent[]): number {
  return extents.reduce((sum, [, length]) => sum + length, 0);
}
