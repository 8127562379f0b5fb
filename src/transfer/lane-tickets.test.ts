import { expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { seededDice } from "../base/dice.ts";
import type { LaneSink } from "./lane.ts";
import { LaneTickets, ticketLifeMs, ticketsMax } from "./lane-tickets.ts";

const sink: LaneSink = { fd: -1, begin: () => [], write: async () => {}, arrived: () => {} };
const bindingOf = (owner: string) => ({ owner, epoch: 3, lane: 1, peerClusterUid: "peer" });

function book() {
  const clock = new FakeClock();
  return { clock, tickets: new LaneTickets(clock, seededDice(1)) };
}

test("a ticket admits its peer to what it was issued for, until its time is over", async () => {
  const { clock, tickets } = book();
  const [first, second] = [tickets.issue(bindingOf("a"), sink), tickets.issue(bindingOf("b"), sink)];
  expect(first).not.toBe(second);
  await clock.advance(ticketLifeMs - 1);
  expect(tickets.redeem(first, "peer")).toMatchObject({ binding: bindingOf("a"), sink });
  await clock.advance(1);
  expect(() => tickets.redeem(second, "peer")).toThrow("the ticket has expired");
  expect(() => tickets.redeem(second, "peer")).toThrow("unknown, used or revoked");
});

test("tickets that wait are limited, and make room when they expire", async () => {
  const { clock, tickets } = book();
  for (let count = 0; count < ticketsMax; count++) tickets.issue(bindingOf("a"), sink);
  expect(() => tickets.issue(bindingOf("b"), sink)).toThrow(expect.objectContaining({ code: "TicketRefused" }));
  await clock.advance(ticketLifeMs);
  expect(tickets.issue(bindingOf("b"), sink)).toMatch(/^[0-9a-f]{64}$/);
});

test("revoking takes one owner's tickets, or all", () => {
  const { tickets } = book();
  const [mine, other, another] = ["a", "b", "c"].map((owner) => tickets.issue(bindingOf(owner), sink));
  tickets.revoke("a");
  expect(() => tickets.redeem(mine ?? "", "peer")).toThrow(expect.objectContaining({ code: "TicketRefused" }));
  tickets.redeem(other ?? "", "peer");
  tickets.revokeAll();
  expect(() => tickets.redeem(another ?? "", "peer")).toThrow(expect.objectContaining({ code: "TicketRefused" }));
});
