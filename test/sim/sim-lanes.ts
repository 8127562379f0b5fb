// Lanes of the simulator: ordered streams of frames that are slow, damaged, torn at either end, or cut by a partition.
import { LongshoreError } from "../../src/domain/errors.ts";
import type {
  Frame,
  Lane,
  LaneBinding,
  LaneDialer,
  LaneServer,
  LaneSink,
  LaneTarget,
} from "../../src/transfer/lane.ts";
import type { Process } from "./host.ts";
import { flipped } from "./memory-disk.ts";
import type { World } from "./world.ts";

const windowFrames = 4;

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
    const lane = new SimLane(world, { source: process, target }, bound, () => target.lanes.lanes.delete(lane));
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
  private readonly forget: () => void;
  /** Frames on their way. */
  private onTheWay = 0;
  private lastArrivalMs = 0;
  private readonly writing = new Set<Promise<void>>();
  private torn: LongshoreError | undefined;
  /** What the source has been told. */
  private failure: LongshoreError | undefined;
  private isShut = false;
  private hasEnded = false;
  private wake = Promise.withResolvers<void>();
  private unlisten: () => void = () => undefined;

  constructor(
    world: World,
    ends: { source: Process; target: Process },
    { binding, sink }: { binding: LaneBinding; sink: LaneSink },
    forget: () => void,
  ) {
    this.world = world;
    this.source = ends.source;
    this.target = ends.target;
    this.binding = binding;
    this.sink = sink;
    this.forget = forget;
  }

  async send(frame: Frame, payload: Uint8Array): Promise<void> {
    this.source.effect("frame");
    while (this.onTheWay >= windowFrames && this.failure === undefined) await this.wake.promise;
    if (this.failure !== undefined) throw this.failure;
    this.bytesSent += 16 + payload.length;
    const { faults, chance, timeline } = this.world;
    let content: Buffer = Buffer.from(payload);
    if (chance.is(faults.wireFlips)) content = flipped(content, chance);
    this.onTheWay += 1;
    const isTorn = chance.is(faults.loss / 8) || faults.isCut(this.source.host, this.target.host);
    // In order, whatever each takes.
    this.lastArrivalMs = Math.max(this.lastArrivalMs, timeline.nowMs + faults.latencyMs());
    timeline.after(this.lastArrivalMs - timeline.nowMs, this.target, () => {
      this.onTheWay -= 1;
      if (isTorn) this.tear("the connection broke");
      else this.arrive(frame, content);
      this.stir();
    });
  }

  async close(): Promise<void> {
    this.hasEnded = true;
    while ((this.onTheWay > 0 || this.writing.size > 0) && this.failure === undefined && !this.isShut) {
      await this.wake.promise;
    }
    await this.world.timeline.pause(this.world.faults.latencyMs(), this.source);
    if (this.failure !== undefined) throw this.failure;
    if (this.torn !== undefined || this.isShut) throw new LongshoreError("StreamTorn", "the lane was cut short");
    this.unlisten();
    this.forget();
  }

  /** A signal made of others is kept, with all that listens to it, for as long as somebody does; so this ends with the lane. */
  breakWith(signal: AbortSignal): void {
    const breakLane = () => this.destroy(new Error("the job stopped"));
    signal.addEventListener("abort", breakLane, { once: true });
    this.unlisten = () => signal.removeEventListener("abort", breakLane);
  }

  destroy(reason: Error): void {
    this.unlisten();
    this.failure ??= new LongshoreError("StreamTorn", "the lane was broken here", { cause: reason });
    this.stir();
    const { chance, timeline, faults } = this.world;
    // The target may learn it late, or by its own clock alone.
    if (chance.is(0.8)) timeline.after(faults.latencyMs(), this.target, () => this.tear("the source broke it"));
  }

  /** Closed on purpose at the target: resolves when no write is in flight any more. */
  async shut(): Promise<void> {
    this.isShut = true;
    this.forget();
    this.tellSource("closed by the target");
    await Promise.allSettled(this.writing);
  }

  targetDied(): void {
    this.isShut = true;
    this.unlisten();
    this.tellSource("the target died");
  }

  private arrive(frame: Frame, content: Buffer): void {
    if (this.isShut || this.torn !== undefined) return;
    try {
      this.sink.accept(frame);
    } catch (error) {
      return void this.tear(`refused: ${error}`);
    }
    const write = this.sink.write(frame.unit, frame.offset, content);
    this.writing.add(write);
    const done = () => {
      this.writing.delete(write);
      this.stir();
    };
    write.then(done, (error: unknown) => {
      done();
      this.tear(`not written: ${error}`);
    });
  }

  private tear(why: string): void {
    if (this.torn !== undefined || this.isShut || (this.hasEnded && this.onTheWay === 0 && this.writing.size === 0))
      return;
    this.torn = new LongshoreError("StreamTorn", `lane: ${why}`);
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
