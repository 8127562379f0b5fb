// The target's lane on the main thread: tells the lane's thread where units belong, and the sink what has arrived. It knows when
// nothing writes for the lane any more, on either thread.
import { LongshoreError } from "../domain/errors.ts";
import type { LaneSink } from "./lane.ts";
import { threadFailure } from "./lane-failure.ts";
import { type FromTarget, flatExtents, type ToTarget } from "./lane-messages.ts";
import type { LaneSignals } from "./lane-signals.ts";
import { unitPayloadBytes } from "./unit-places.ts";

export interface TargetLaneOptions {
  readonly sink: LaneSink;
  readonly signals: LaneSignals;
  /** Writes the sink has to do at once, where the thread does not write by itself. */
  readonly writesInFlightMax: number;
  post(message: ToTarget, transfer?: ArrayBuffer[]): void;
  /** Called at most once, for whatever breaks the lane but {@link TargetLane.stop}. */
  onBroken(error: Error): void;
}

type Write = Extract<FromTarget, { kind: "write" }>;

export class TargetLane {
  readonly #options: TargetLaneOptions;
  readonly #joined = Promise.withResolvers<void>();
  readonly #writes: Write[] = [];
  #writesInFlight = 0;
  /** Of the units that are not whole yet, in order: writes still to be done, and whether all of them are known. */
  readonly #units: { readonly unit: number; writesLeft: number; isWhole: boolean }[] = [];
  #isOpen = true;
  #hasThreadEnded = false;

  constructor(options: TargetLaneOptions) {
    this.#options = options;
  }

  /** Resolves when the lane has ended, for whatever reason, and nothing writes for it any more. */
  get joined(): Promise<void> {
    return this.#joined.promise;
  }

  /** Breaks the lane, on purpose; resolves when nothing writes any more. */
  stop(): Promise<void> {
    this.#stop();
    return this.joined;
  }

  /** Takes a message of the thread. */
  take(message: FromTarget): void {
    if (message.kind === "ended") {
      this.threadEnded(message.error && threadFailure("write what came in", message.error));
    }
    if (!this.#isOpen) return;
    if (message.kind === "begin") this.#begin(message);
    else if (message.kind === "write") this.#write(message);
    else if (message.kind === "arrived") this.#arrived(message.unit);
    // Its messages come in order, so the sink has been told of everything.
    else if (message.kind === "finished") this.#options.post({ kind: "finish" });
  }

  /** The thread does not write any more. */
  threadEnded(error?: Error): void {
    this.#hasThreadEnded = true;
    if (error !== undefined) this.#break(error);
    this.#settle();
  }

  #begin({ unit, payloadBytes }: Extract<FromTarget, { kind: "begin" }>): void {
    try {
      const extents = this.#options.sink.begin(unit);
      const planned = unitPayloadBytes(unit, extents);
      if (planned !== payloadBytes) {
        const text = `lane: unit ${unit} announces ${payloadBytes} bytes, its plan has ${planned}`;
        throw new LongshoreError("BadRequest", text);
      }
      this.#units.push({ unit, writesLeft: 0, isWhole: false });
      const flat = flatExtents(extents);
      this.#options.post({ kind: "extents", extents: flat }, [flat.buffer]);
    } catch (error) {
      this.#break(error as Error);
    }
  }

  #arrived(unit: number): void {
    const arriving = this.#units.find((one) => one.unit === unit);
    if (arriving !== undefined) arriving.isWhole = true;
    this.#tellArrived();
  }

  #tellArrived(): void {
    try {
      for (let first = this.#units[0]; first?.isWhole && first.writesLeft === 0; first = this.#units[0]) {
        this.#units.shift();
        this.#options.sink.arrived(first.unit);
      }
    } catch (error) {
      this.#break(error as Error);
    }
  }

  #write(write: Write): void {
    const unit = this.#units.find((one) => one.unit === write.unit && !one.isWhole);
    if (unit !== undefined) unit.writesLeft++;
    this.#writes.push(write);
    this.#startWrites();
  }

  #startWrites(): void {
    while (this.#isOpen && this.#writesInFlight < this.#options.writesInFlightMax) {
      const write = this.#writes.shift();
      if (write === undefined) return;
      this.#writesInFlight++;
      void this.#run(write);
    }
  }

  async #run({ unit, offset, data }: Write): Promise<void> {
    try {
      await this.#options.sink.write(unit, offset, data);
      const written = this.#units.find((one) => one.unit === unit);
      if (written !== undefined) written.writesLeft--;
      if (this.#isOpen) this.#tellArrived();
      if (this.#isOpen) this.#options.post({ kind: "written", bytes: data.length });
    } catch (error) {
      this.#break(error as Error);
    } finally {
      this.#writesInFlight--;
      this.#startWrites();
      this.#settle();
    }
  }

  #break(error: Error): void {
    if (!this.#isOpen) return;
    this.#stop();
    this.#options.onBroken(error);
  }

  #stop(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#writes.length = 0;
    this.#options.signals.stop();
    if (!this.#hasThreadEnded) this.#options.post({ kind: "stop" });
  }

  #settle(): void {
    if (!this.#hasThreadEnded || this.#writesInFlight > 0) return;
    this.#isOpen = false;
    this.#joined.resolve();
  }
}
