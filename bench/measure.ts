// Measures one tool in one case, in one session: sets it up, brings the base over, warms it up, and times its runs.
import { setTimeout as sleep } from "node:timers/promises";
import { differingBytes, isEqualByCmp } from "../test/e2e/images.ts";
import { runCommand } from "./command.ts";
import { bytesOf, type DataSet } from "./data-set.ts";
import type { Measured } from "./results.ts";
import type { Range, Session, SessionOptions, Transfer } from "./tool.ts";

export interface Measuring {
  readonly session: Session;
  readonly setting: SessionOptions;
  readonly data: DataSet;
  readonly runs: number;
  /** Whether to find out by comparison how much really differs. */
  readonly wantsTruth: boolean;
  /** Whether every run's copy is compared with its source, or the last one's alone. */
  readonly verifiesAll: boolean;
}

export interface MeasuredSession extends Measured {
  /** How many bytes in differing blocks there were in a run. */
  readonly bytesChanged: number | undefined;
}

const quietMs = 100;

export async function measure(measuring: Measuring): Promise<MeasuredSession> {
  const run = new Run(measuring);
  await run.prepare();
  for (let index = 0; index < measuring.runs; index++) await run.timed(index === measuring.runs - 1);
  return run.result();
}

class Run {
  readonly #measuring: Measuring;
  readonly #session: Session;
  readonly #transfers: Transfer[] = [];
  #bytesChanged: number | undefined;
  #step = 0;

  constructor(measuring: Measuring) {
    this.#measuring = measuring;
    this.#session = measuring.session;
  }

  /** The first content, and what is not timed: a first copy, which is the base unless copies begin anew, and then changes. */
  async prepare(): Promise<void> {
    const { setting, data } = this.#measuring;
    await data.fill(this.#session);
    await this.#bringOver([]);
    if (setting.case.change.kind === "all") return;
    for (let round = 1; round <= setting.case.warmUps; round++) {
      await this.#bringOver(await data.warmUp(this.#session, round));
      await this.#revert();
    }
    // So that the last profiles are of the runs that count alone.
    if (setting.options.profile !== undefined) await this.#session.restart();
  }

  /** One run: a change, the transfer against the clock, and what makes the next run find the same. */
  async timed(isLast: boolean): Promise<void> {
    const { setting, data, wantsTruth, verifiesAll } = this.#measuring;
    const isFirstCopy = setting.case.change.kind === "all";
    if (isFirstCopy) await this.#session.forget();
    const ranges = await data.change(this.#session, this.#step + 1);
    if (wantsTruth && this.#bytesChanged === undefined) this.#bytesChanged = await this.#compare(ranges);
    if (setting.case.isCold) await this.#session.restart();
    this.#transfers.push(await this.#bringOver(ranges, verifiesAll || isLast));
    if (!isLast) await this.#revert();
  }

  result(): MeasuredSession {
    return {
      runsMs: this.#transfers.map(({ ms }) => ms),
      bytesSent: this.#transfers.map(({ bytesSent }) => bytesSent),
      memory: this.#session.memory(),
      bytesChanged: this.#bytesChanged,
    };
  }

  async #bringOver(ranges: readonly (readonly Range[])[], isVerified = false): Promise<Transfer> {
    this.#step += 1;
    await this.#session.capture(this.#step);
    // What was written on the way here is on its disk, and nobody is busy with it any more.
    await runCommand("sync", []);
    await sleep(quietMs);
    const transfer = await this.#session.transfer(this.#step, ranges);
    if (isVerified) await this.#verify();
    await this.#session.tidy(this.#step);
    return transfer;
  }

  async #revert(): Promise<void> {
    const { data } = this.#measuring;
    if (data.revert !== undefined) await this.#bringOver(await data.revert(this.#session));
  }

  /** What the copy has to become the same in: found block by block. The floors are told neither less nor more. */
  async #compare(ranges: readonly (readonly Range[])[]): Promise<number> {
    const isFirstCopy = this.#measuring.setting.case.change.kind === "all";
    let bytes = 0;
    for (let volume = 0; volume < this.#measuring.setting.case.volumes; volume++) {
      const base = isFirstCopy ? undefined : await this.#session.copyPath(volume, this.#step);
      bytes += await differingBytes(base, this.#session.livePath(volume));
    }
    if (bytes !== bytesOf(ranges)) throw new Error(`${bytesOf(ranges)} bytes were changed, but ${bytes} differ`);
    return bytes;
  }

  async #verify(): Promise<void> {
    for (let volume = 0; volume < this.#measuring.setting.case.volumes; volume++) {
      const copy = await this.#session.copyPath(volume, this.#step);
      if (!(await isEqualByCmp(this.#session.livePath(volume), copy)))
        throw new Error(`the copy of volume ${volume} is not what its source is: ${copy}`);
    }
  }
}
