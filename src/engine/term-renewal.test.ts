import { expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { openRenewal } from "./term-renewal.ts";

const unreachable = new LongshoreError("Unreachable", "no answer");
const user = () => new AbortController();

/** Work that lasts until the term is lost, with what it was told then. */
function working(clock: FakeClock, renew: () => Promise<void>) {
  const renewal = openRenewal(clock, user().signal);
  const lost = new Promise<unknown>((resolve) => {
    renewal.signal.addEventListener("abort", () => resolve(renewal.signal.reason));
  });
  return { renewal, work: renewal.during({ leaseMs: 3_000, renew }, () => lost) };
}

test("a term is renewed three times in each lease, until the work is done", async () => {
  const clock = new FakeClock();
  let renewals = 0;
  const done = Promise.withResolvers<void>();
  const renew = async () => {
    renewals += 1;
  };
  const work = openRenewal(clock, user().signal).during({ leaseMs: 3_000, renew }, () => done.promise);
  await clock.advance(6_000);
  expect(renewals).toBe(6);
  done.resolve();
  await work;
  await clock.advance(6_000);
  expect(renewals).toBe(6);
});

test("the work is told at once when the term was taken away", async () => {
  const clock = new FakeClock();
  const { work } = working(clock, () => Promise.reject(new LongshoreError("TermLost", "taken")));
  await clock.advance(1_000);
  expect(await work).toMatchObject({ code: "TermLost" });
});

test("one lost renewal is not a lost term; none for a whole lease is", async () => {
  const clock = new FakeClock();
  const failures = [1, 4, 5, 6];
  let renewals = 0;
  const { renewal, work } = working(clock, async () => {
    renewals += 1;
    if (failures.includes(renewals)) throw unreachable;
  });
  await clock.advance(5_000);
  expect(renewal.signal.aborted).toBe(false);
  await clock.advance(1_000);
  expect(await work).toBe(unreachable);
});
