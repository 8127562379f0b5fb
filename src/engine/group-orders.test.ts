import { expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { Order, ShareReport } from "../wire/member.ts";
import type { Core } from "./core.ts";
import { GroupOrders } from "./group-orders.ts";
import type { JobViews } from "./job-views.ts";

const report: Omit<ShareReport, "agentId"> = {
  job: "job",
  epoch: 1,
  state: "running",
  step: "Joined",
  problem: null,
  finishedAs: null,
  steering: { steered: 0, suspend: false, cancel: false },
  shares: [],
};

/** Participants that answer an order after a while with what was laid down for them. */
function participants() {
  const clock = new FakeClock();
  const ordered = new Set<string>();
  const says = new Map<string, Partial<ShareReport>>();
  const order = async (agentId: string): Promise<ShareReport> => {
    ordered.add(agentId);
    await clock.sleep(100);
    return { ...report, agentId, ...says.get(agentId) };
  };
  const core = {
    clock,
    limits: { leaseMs: 3_000, retryDelayMs: 10 },
    members: { api: (agentId: string) => ({ order: () => order(agentId) }) },
  } as unknown as Core;
  const views = { note: () => undefined } as unknown as JobViews;
  const orders = new GroupOrders(core, { views, onReport: () => undefined });
  const bring = (isInTurn: boolean) =>
    orders.bring({
      job: "job",
      order: { step: "Joined" } as Order,
      who: ["a", "b", "c"],
      isInTurn,
      signal: new AbortController().signal,
    });
  return { clock, ordered, says, bring };
}

test("each is ordered in turn once the one before it has its room, and all are waited for", async () => {
  const { clock, ordered, says, bring } = participants();
  says.set("a", { isReserved: false });
  says.set("b", { isReserved: false });
  let isOver = false;
  const all = bring(true).then(() => {
    isOver = true;
  });
  await clock.advance(1_000);
  expect([...ordered]).toEqual(["a"]);
  says.set("a", { isReserved: true });
  await clock.advance(1_000);
  expect([...ordered]).toEqual(["a", "b"]);
  says.set("b", { isReserved: true });
  await clock.advance(1_000);
  expect([...ordered]).toEqual(["a", "b", "c"]);
  for (const agentId of ["b", "c"]) says.set(agentId, { state: "idle" });
  await clock.advance(1_000);
  expect(isOver).toBe(false);
  says.set("a", { state: "idle", isReserved: true });
  await clock.advance(1_000);
  await all;
});

test("nobody waits for one that does not tell whether it has its room, for it is of an earlier version", async () => {
  const { clock, ordered, says, bring } = participants();
  const all = bring(true);
  await clock.advance(500);
  expect([...ordered]).toEqual(["a", "b", "c"]);
  for (const agentId of ["a", "b", "c"]) says.set(agentId, { state: "idle" });
  await clock.advance(500);
  await all;
});

test("where the turn does not matter all are ordered at once", async () => {
  const { clock, ordered, says, bring } = participants();
  for (const agentId of ["a", "b", "c"]) says.set(agentId, { state: "idle", isReserved: false });
  const all = bring(false);
  await clock.advance(50);
  expect([...ordered]).toEqual(["a", "b", "c"]);
  await clock.advance(500);
  await all;
});

test("who fails while others wait for their turn ends the wait, and they are not ordered", async () => {
  const { clock, ordered, says, bring } = participants();
  says.set("a", { isReserved: false });
  const all = expect(bring(true)).rejects.toMatchObject({ code: "LeaseHeld" });
  await clock.advance(500);
  const problem = { type: "urn:longshore:problem:LeaseHeld", title: "Lease held", status: 409, advice: "Wait." };
  says.set("a", { state: "failed", problem: { ...problem, code: "LeaseHeld", detail: "no room" } });
  await clock.advance(500);
  await all;
  expect([...ordered]).toEqual(["a"]);
});
