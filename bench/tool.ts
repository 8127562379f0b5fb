// What is compared: each tool keeps volumes on one side and brings copies of them to the other.
import type { Case, ToolName } from "./cases.ts";
import type { Options } from "./options.ts";

/** Bytes [offset, offset + length) of a volume. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}

export interface Transfer {
  /** From the request to the durable end. */
  readonly ms: number;
  /** By the tool's own account, or what was read off its connections. */
  readonly bytesSent: number | undefined;
}

export interface Memory {
  /** Of the largest process, in MiB. */
  readonly peakRssMiB: number;
  /** Of the same process before it had anything to do; only for what is a service. */
  readonly idleRssMiB?: number;
  /** What any process of a service has grown by. */
  readonly growthMiB?: number;
}

/** A tool with its two sides set up. Steps are numbered upwards; volumes from 0. */
export interface Session {
  /** The image that the volume's user writes to. */
  livePath(volume: number): string;
  /** Holds the volumes' content as of now as this step, durably: what each tool's users do before they transfer. Not timed. */
  capture(step: number): Promise<void>;
  /** Brings a captured step to the other side, durably. `changed`: the ranges by volume, which only the floors look at. */
  transfer(step: number, changed: readonly (readonly Range[])[]): Promise<Transfer>;
  /** The copy of a step at the other side. */
  copyPath(volume: number, step: number): Promise<string>;
  /** Makes the next transfer a first one: takes all copies away. */
  forget(): Promise<void>;
  /** Takes away what only steps before this one needed. */
  tidy(step: number): Promise<void>;
  /** Starts services anew, as after a restart of the machine. */
  restart(): Promise<void>;
  memory(): Memory | undefined;
  close(): Promise<void>;
}

export interface SessionOptions {
  readonly case: Case;
  readonly options: Options;
  /** For keys, logs and the like. */
  readonly folder: string;
}

export interface Tool {
  readonly name: ToolName;
  /** What it is and how it is called, for the report. */
  describe(): Promise<string>;
  /** Throws {@link NotAvailable} when this machine or this version has no such thing. */
  open(options: SessionOptions): Promise<Session>;
}

/** A tool that cannot be measured here, with the reason; it gets no rows. */
export class NotAvailable extends Error {}
