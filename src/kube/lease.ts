// Leadership by a Lease, as Kubernetes' own controllers use it: at most one of all processes acts. It holds as long as clocks
// run at about the same speed; they need not show the same time, for what others wrote is timed from when it was seen here.
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import { withDeadline } from "./abortable.ts";
import type { Api } from "./api.ts";
import type { Key, KindRef, KubeObject } from "./cluster.ts";
import { isAlreadyExists, isKubeError } from "./errors.ts";
import { fieldManager } from "./kube-cluster.ts";
import { isSameJson } from "./merge-patch.ts";
import { collectionPath, objectPath } from "./resource-path.ts";

export interface LeaseTiming {
  /** How long others wait after the holder's last sign of life; whole seconds. */
  readonly durationMs: number;
  /** How long the holder acts after its last success in renewing; less than the duration, by more than clocks may differ. */
  readonly renewDeadlineMs: number;
  /** How often the holder renews, and others look. */
  readonly retryMs: number;
}

export const defaultLeaseTiming: LeaseTiming = { durationMs: 15_000, renewDeadlineMs: 10_000, retryMs: 2_000 };

export interface LeaseOptions {
  readonly lease: Required<Key>;
  /** Must be another for every process, and for every start of one. */
  readonly identity: string;
  readonly timing?: LeaseTiming;
}

/** A mandate to act, until its signal aborts. */
export interface Leadership {
  /** Aborts when the mandate is lost or given back. */
  readonly signal: AbortSignal;
  /** Whether it holds at this moment: exact even where timers are late. */
  isHeld(): boolean;
  /** Gives it back, so that another need not wait. To be called when nothing acts under it any more. Never rejects. */
  release(): Promise<void>;
  /** Stops renewing without giving it back, because something may still act under it: others wait for its end. */
  abandon(): Promise<void>;
}

export interface LeaseDeps {
  readonly api: Api;
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
}

interface LeaseSpec {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  readonly leaseTransitions?: number;
}
interface Lease extends KubeObject {
  readonly spec?: LeaseSpec;
}
const Leases: KindRef<Lease> = {
  group: "coordination.k8s.io",
  version: "v1",
  plural: "leases",
  kind: "Lease",
  namespaced: true,
};

/** Waits for leadership, however long it takes; rejects with the signal's reason. */
export async function acquireLeadership(
  options: LeaseOptions,
  deps: LeaseDeps,
  signal: AbortSignal,
): Promise<Leadership> {
  const candidate = new Candidate(options, deps);
  for (;;) {
    const grantedMs = await candidate.attempt(signal);
    if (grantedMs !== undefined) return new HeldLease(candidate, grantedMs, deps);
    await deps.clock.sleep(candidate.timing.retryMs * (1 + deps.dice.random() / 5), signal);
  }
}

/** Reads and writes the Lease for one process. */
class Candidate {
  readonly timing: LeaseTiming;
  readonly #options: LeaseOptions;
  readonly #deps: LeaseDeps;
  /** The Lease as last seen, and when that content was first seen here. */
  #seen: { readonly lease: Lease; readonly atMs: number } | undefined;

  constructor(options: LeaseOptions, deps: LeaseDeps) {
    this.#options = options;
    this.#deps = deps;
    this.timing = options.timing ?? defaultLeaseTiming;
  }

  get identity(): string {
    return this.#options.identity;
  }

  /** Tries once to get or keep the lease; the time from which the grant counts, or `undefined`. Never rejects but by abort. */
  async attempt(signal: AbortSignal): Promise<number | undefined> {
    const { clock, log } = this.#deps;
    const timeoutMs = this.timing.renewDeadlineMs;
    try {
      const late = new Error(`no answer within ${timeoutMs} ms`);
      return await withDeadline({ clock, timeoutMs, signal, late }, (bounded) => this.#claim(bounded));
    } catch (error) {
      signal.throwIfAborted();
      const isLost = isKubeError(error, "Conflict");
      if (!isLost) log.warn({ err: error, lease: this.#options.lease.name }, "lease could not be written");
      return undefined;
    }
  }

  /** Who holds the lease, as last seen. */
  holder(): string | undefined {
    return this.#seen?.lease.spec?.holderIdentity;
  }

  async clear(signal: AbortSignal): Promise<void> {
    const lease = this.#seen?.lease;
    if (lease === undefined || lease.spec?.holderIdentity !== this.identity) return;
    const { holderIdentity: _, ...spec } = lease.spec;
    await this.#put({ ...lease, spec: { ...spec, leaseDurationSeconds: 1, renewTime: this.#time() } }, signal);
  }

  async #claim(signal: AbortSignal): Promise<number | undefined> {
    const lease = await this.#look(signal);
    // The grant counts from before it was asked for, so that it ends here before it can end for anyone else.
    const askedMs = this.#deps.clock.monotonicMs();
    if (lease === undefined) return (await this.#create(signal)) ? askedMs : undefined;
    if (this.#isTaken(lease)) return undefined;
    await this.#put({ ...lease, spec: this.#spec(lease.spec) }, signal);
    return askedMs;
  }

  async #look(signal: AbortSignal): Promise<Lease | undefined> {
    try {
      const path = objectPath(Leases, this.#options.lease);
      const lease = (await this.#deps.api.request({ method: "GET", path, signal })) as Lease;
      this.#see(lease);
      return lease;
    } catch (error) {
      if (isKubeError(error, "NotFound")) return undefined;
      throw error;
    }
  }

  #see(lease: Lease): void {
    if (this.#seen !== undefined && isSameJson(this.#seen.lease.spec, lease.spec)) {
      this.#seen = { lease, atMs: this.#seen.atMs };
    } else {
      this.#seen = { lease, atMs: this.#deps.clock.monotonicMs() };
    }
  }

  #isTaken({ spec = {} }: Lease): boolean {
    if (spec.holderIdentity === undefined || spec.holderIdentity === "") return false;
    if (spec.holderIdentity === this.identity) return false;
    const endsMs = (this.#seen?.atMs ?? 0) + (spec.leaseDurationSeconds ?? 0) * 1000;
    return this.#deps.clock.monotonicMs() < endsMs;
  }

  async #create(signal: AbortSignal): Promise<boolean> {
    const { name, namespace } = this.#options.lease;
    const body = {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name, namespace },
      spec: this.#spec(undefined),
    };
    try {
      const path = collectionPath(Leases, namespace);
      this.#see(
        (await this.#deps.api.request({ method: "POST", path, query: { fieldManager }, body, signal })) as Lease,
      );
      return true;
    } catch (error) {
      if (isAlreadyExists(error)) return false;
      throw error;
    }
  }

  /** Writes exactly over what was read: whoever comes second gets a conflict. */
  async #put(lease: Lease, signal: AbortSignal): Promise<void> {
    const path = objectPath(Leases, this.#options.lease);
    const request = { method: "PUT", path, query: { fieldManager }, body: lease, signal } as const;
    this.#see((await this.#deps.api.request(request)) as Lease);
  }

  #spec(before: LeaseSpec | undefined): LeaseSpec {
    const isOurs = before?.holderIdentity === this.identity;
    const time = this.#time();
    return {
      holderIdentity: this.identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(this.timing.durationMs / 1000)),
      acquireTime: isOurs && before.acquireTime !== undefined ? before.acquireTime : time,
      renewTime: time,
      leaseTransitions: isOurs ? (before.leaseTransitions ?? 0) : (before?.leaseTransitions ?? -1) + 1,
    };
  }

  #time(): string {
    return new Date(this.#deps.clock.nowMs()).toISOString().replace("Z", "000Z");
  }
}

class HeldLease implements Leadership {
  readonly #candidate: Candidate;
  readonly #deps: LeaseDeps;
  readonly #lost = new AbortController();
  readonly #stop = new AbortController();
  readonly #renewing: Promise<void>;
  #grantedMs: number;

  constructor(candidate: Candidate, grantedMs: number, deps: LeaseDeps) {
    this.#candidate = candidate;
    this.#deps = deps;
    this.#grantedMs = grantedMs;
    this.#renewing = this.#renew();
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  isHeld(): boolean {
    return !this.#lost.signal.aborted && this.#leftMs() > 0;
  }

  async release(): Promise<void> {
    const wasHeld = this.isHeld();
    await this.abandon();
    if (!wasHeld) return;
    const { clock, log } = this.#deps;
    const timeoutMs = this.#candidate.timing.retryMs;
    const late = new Error(`no answer within ${timeoutMs} ms`);
    try {
      const signal = new AbortController().signal;
      await withDeadline({ clock, timeoutMs, signal, late }, (bounded) => this.#candidate.clear(bounded));
    } catch (error) {
      log.info({ err: error }, "lease not released, it ends by itself");
    }
  }

  async abandon(): Promise<void> {
    this.#stop.abort(new Error("leadership was given back"));
    await this.#renewing;
  }

  #leftMs(): number {
    return this.#grantedMs + this.#candidate.timing.renewDeadlineMs - this.#deps.clock.monotonicMs();
  }

  /** Never rejects. */
  async #renew(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted && this.#leftMs() > 0) {
      await this.#pause(signal);
      const grantedMs = await this.#attempt(signal);
      if (grantedMs !== undefined) this.#grantedMs = grantedMs;
      else if (this.#candidate.holder() !== this.#candidate.identity) break;
    }
    this.#lost.abort(signal.aborted ? signal.reason : new Error("leadership was lost"));
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const waitMs = Math.min(this.#candidate.timing.retryMs, Math.max(0, this.#leftMs()));
    await this.#deps.clock.sleep(waitMs, signal).catch(() => undefined); // Stopped: the loop ends by its own condition.
  }

  async #attempt(signal: AbortSignal): Promise<number | undefined> {
    const { clock } = this.#deps;
    const late = new Error("the lease ended before it could be renewed");
    const timeoutMs = Math.max(0, this.#leftMs());
    try {
      return await withDeadline({ clock, timeoutMs, signal, late }, (bounded) => this.#candidate.attempt(bounded));
    } catch {
      return undefined; // Stopped or too late, which the loop finds out by itself; all else is handled in the attempt.
    }
  }
}
