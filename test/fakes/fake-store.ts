// Named, versioned rows with a change feed: what both sides of the fake agent are made of.
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Change, List } from "../../src/wire/schemas.ts";
import { FakeFeed } from "./fake-feed.ts";
import type { Versioned } from "./fake-rows.ts";

export interface FakeAgentOptions {
  readonly clusterUid?: string;
  readonly clusterName?: string;
  /** The how-manieth agent of its cluster it is, from 1. */
  readonly place?: number;
  /** Wall time in milliseconds; a constant unless given. */
  readonly nowMs?: () => number;
  /** How many changes are remembered before followers are told to list again. */
  readonly changesKept?: number;
}

export class FakeStore {
  readonly feed: FakeFeed;
  readonly #nowMs: () => number;
  readonly #place: number;
  #serial = 0;

  constructor(options: FakeAgentOptions) {
    this.#place = options.place ?? 1;
    this.feed = new FakeFeed(options.changesKept ?? 1000);
    this.#nowMs = options.nowMs ?? (() => Date.UTC(2026, 0, 1));
  }

  protected getRow<T>(from: Map<string, T>, name: string, kind: string): T {
    const found = from.get(name);
    if (found === undefined) throw new LongshoreError("NotFound", `no ${kind} ${name}`);
    return found;
  }

  protected listOf<T extends Versioned>(from: Map<string, T>): List<T> {
    const items = [...from.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return { items: structuredClone(items), sequence: this.feed.sequence };
  }

  protected storeRow<T extends Versioned>(into: Map<string, T>, kind: Change["kind"], value: T): void {
    into.set(value.name, value);
    this.touch(kind, value);
  }

  protected dropRow(from: Map<string, unknown>, kind: Change["kind"], name: string): void {
    from.delete(name);
    this.feed.push(kind, name);
  }

  protected touch(kind: Change["kind"], value: Versioned): void {
    value.revision++;
    this.feed.push(kind, value.name);
  }

  protected now(): string {
    return new Date(this.#nowMs()).toISOString();
  }

  protected id(): string {
    this.#serial++;
    return (this.#place * 2 ** 32 + this.#serial).toString(16).padStart(32, "0");
  }
}
