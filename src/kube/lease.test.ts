import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { FakeClock, settledTasks } from "../../test/fakes/fake-clock.ts";
import { seededDice } from "../base/dice.ts";
import { silentLog } from "../base/log.ts";
import type { Api, ApiRequest } from "./api.ts";
import { KubeError } from "./errors.ts";
import { acquireLeadership, defaultLeaseTiming, type Leadership } from "./lease.ts";

interface StoredLease {
  readonly metadata: { readonly name: string; readonly resourceVersion: string };
  readonly spec: { readonly holderIdentity?: string; readonly leaseTransitions: number };
}

/** One Lease, with the API server's rule that who writes over an old version gets a conflict. */
class LeaseServer {
  lease: StoredLease | undefined;
  #version = 0;

  /** A client of it; `gate` may hold up, or refuse, its requests. */
  client(gate: (request: ApiRequest) => Promise<void> = async () => undefined): Api {
    return {
      request: async (request) => {
        await gate(request);
        request.signal?.throwIfAborted();
        return this.#answer(request);
      },
      watch: () => {
        throw new Error("nobody watches leases");
      },
      close: () => undefined,
    };
  }

  #answer({ method, body }: ApiRequest): StoredLease {
    const written = body as StoredLease;
    if (method === "GET" && this.lease === undefined) throw new KubeError("NotFound", "no lease");
    if (method === "POST" && this.lease !== undefined) {
      throw new KubeError("Conflict", "exists", { reason: "AlreadyExists" });
    }
    if (method === "PUT" && written.metadata.resourceVersion !== this.lease?.metadata.resourceVersion) {
      throw new KubeError("Conflict", "the object has been modified");
    }
    if (method !== "GET") {
      const metadata = { ...written.metadata, resourceVersion: String(++this.#version) };
      this.lease = structuredClone({ ...written, metadata });
    }
    return structuredClone(this.lease as StoredLease);
  }
}

const lease = { namespace: "default", name: "operator" };
const { durationMs, renewDeadlineMs, retryMs } = defaultLeaseTiming;

let clock: FakeClock;
let server: LeaseServer;
let stop: AbortController;
let held: Leadership[];

beforeEach(() => {
  clock = new FakeClock();
  server = new LeaseServer();
  stop = new AbortController();
  held = [];
});

afterEach(async () => {
  stop.abort(new Error("the test is over"));
  await Promise.all(held.map((leadership) => leadership.abandon()));
  expect(clock.sleepers).toBe(0);
});

/** A candidate; `leads()` is its leadership once it has one. */
function candidate(identity: string, gate?: (request: ApiRequest) => Promise<void>) {
  let leadership: Leadership | undefined;
  const deps = { api: server.client(gate), clock, dice: seededDice(1), log: silentLog };
  const acquired = acquireLeadership({ lease, identity }, deps, stop.signal).then((granted) => {
    leadership = granted;
    held.push(granted);
  });
  acquired.catch(() => undefined);
  return { acquired, leads: () => leadership };
}

const holder = () => server.lease?.spec.holderIdentity;

test("the first candidate leads at once, and goes on for as long as it renews", async () => {
  const first = candidate("first");
  await first.acquired;
  await clock.advance(3_600_000);
  expect(first.leads()?.isHeld()).toBe(true);
  expect([holder(), server.lease?.spec.leaseTransitions]).toEqual(["first", 0]);
});

test("a second candidate waits while the first renews, and leads soon after it released", async () => {
  const first = candidate("first");
  await first.acquired;
  const second = candidate("second");
  await clock.advance(120_000);
  expect(second.leads()).toBeUndefined();
  await first.leads()?.release();
  expect(first.leads()?.isHeld()).toBe(false);
  expect(holder()).toBeUndefined();
  await clock.advance(retryMs * 1.5);
  expect(second.leads()?.isHeld()).toBe(true);
  expect([holder(), server.lease?.spec.leaseTransitions]).toEqual(["second", 1]);
});

test("after the first one is killed the second leads when the lease has run out, not before", async () => {
  let isDead = false;
  const first = candidate("first", async () => {
    if (isDead) throw new KubeError("Unreachable", "dead");
  });
  await first.acquired;
  const second = candidate("second");
  await clock.advance(10_000);
  isDead = true;
  await clock.advance(durationMs - retryMs);
  expect(second.leads()).toBeUndefined();
  await clock.advance(4 * retryMs);
  expect(second.leads()?.isHeld()).toBe(true);
});

test.each(["cannot reach the API server", "gets no answers"])(
  "a leader that %s stops before anybody else can lead",
  async (how) => {
    let isAway = false;
    const first = candidate("first", async ({ signal }) => {
      if (!isAway) return;
      if (how === "cannot reach the API server") throw new KubeError("Unreachable", "away");
      await clock.sleep(1e9, signal);
    });
    await first.acquired;
    const second = candidate("second");
    await clock.advance(10_000);
    isAway = true;
    const awayMs = clock.monotonicMs();
    while (second.leads() === undefined) {
      await clock.advance(100);
      expect(Number(first.leads()?.isHeld()) + Number(second.leads()?.isHeld() ?? false)).toBeLessThanOrEqual(1);
      if (clock.monotonicMs() > awayMs + 2 * durationMs) throw new Error("nobody took over");
    }
    expect(first.leads()?.signal.aborted).toBe(true);
    expect(String(first.leads()?.signal.reason)).toContain("lost");
  },
);

test("a leader whose process was suspended knows at once that it leads no more, before any timer has fired", async () => {
  const first = candidate("first");
  await first.acquired;
  await settledTasks();
  const leadership = first.leads();
  // Time passes without anything of the process running.
  const isHeldLater = () => {
    const later = clock.monotonicMs() + renewDeadlineMs;
    const real = clock.monotonicMs.bind(clock);
    clock.monotonicMs = () => later;
    const isHeld = leadership?.isHeld();
    clock.monotonicMs = real;
    return isHeld;
  };
  expect(leadership?.signal.aborted).toBe(false);
  expect(isHeldLater()).toBe(false);
});

test("a leader that finds another holder stops at once", async () => {
  const first = candidate("first");
  await first.acquired;
  if (server.lease === undefined) throw new Error("no lease");
  const { metadata, spec } = server.lease;
  server.lease = { metadata: { ...metadata, resourceVersion: "99" }, spec: { ...spec, holderIdentity: "thief" } };
  await clock.advance(retryMs + 1);
  expect(first.leads()?.signal.aborted).toBe(true);
  await first.leads()?.release();
  expect(holder()).toBe("thief");
});

test("a short failure is got over", async () => {
  let isAway = false;
  const first = candidate("first", async () => {
    if (isAway) throw new KubeError("Unreachable", "away");
  });
  await first.acquired;
  isAway = true;
  await clock.advance(renewDeadlineMs - retryMs);
  isAway = false;
  await clock.advance(60_000);
  expect(first.leads()?.isHeld()).toBe(true);
});

test("a lease that somebody deletes is made anew", async () => {
  const first = candidate("first");
  await first.acquired;
  server.lease = undefined;
  await clock.advance(retryMs + 1);
  expect([holder(), first.leads()?.isHeld()]).toEqual(["first", true]);
});

test("of two who ask at the same moment one leads", async () => {
  const both = [candidate("first"), candidate("second")];
  await clock.advance(5_000);
  expect(both.filter(({ leads }) => leads()?.isHeld())).toHaveLength(1);
});

test("clocks that show different times do not matter", async () => {
  const first = candidate("first");
  await first.acquired;
  // For the second one, the first one's last sign of life lies an hour back.
  const skewed: FakeClock = Object.create(clock, { nowMs: { value: () => clock.nowMs() + 3_600_000 } });
  const deps = { api: server.client(), clock: skewed, dice: seededDice(1), log: silentLog };
  const outcome = acquireLeadership({ lease, identity: "second" }, deps, stop.signal).then(
    () => "leads",
    () => "stopped",
  );
  await clock.advance(120_000);
  expect(holder()).toBe("first");
  stop.abort(new Error("enough"));
  expect(await outcome).toBe("stopped");
});

describe("stopping", () => {
  test("ends the wait for leadership with the signal's reason", async () => {
    await candidate("first").acquired;
    const second = candidate("second");
    await settledTasks();
    stop.abort(new Error("stopping"));
    await expect(second.acquired).rejects.toThrow("stopping");
  });

  test("abandoning leaves the lease to run out", async () => {
    const first = candidate("first");
    await first.acquired;
    await first.leads()?.abandon();
    expect([holder(), first.leads()?.isHeld()]).toEqual(["first", false]);
  });

  test("releasing while the API server is away returns all the same", async () => {
    let isAway = false;
    const first = candidate("first", async ({ signal }) => {
      if (isAway) await clock.sleep(1e9, signal);
    });
    await first.acquired;
    isAway = true;
    const released = first.leads()?.release();
    await clock.advance(retryMs);
    await released;
    expect(holder()).toBe("first");
  });
});
