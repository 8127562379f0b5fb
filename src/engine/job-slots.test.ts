import { expect, test } from "@jest/globals";
import { settledTasks } from "../../test/fakes/fake-clock.ts";
import type { JobRow } from "./job-rows.ts";
import { JobSlots } from "./job-slots.ts";

const row = (name: string, owner: string, location: string) => ({ name, owner, location }) as JobRow;
const never = new AbortController().signal;

test("slots are taken within the limits of the node and of the location, one for each volume and location", () => {
  const slots = new JobSlots({ node: 3, location: (name) => (name === "narrow" ? 1 : 2) });
  expect(slots.take(row("a", "v1", "west"))).toBeDefined();
  expect(slots.take(row("b", "v1", "west"))).toBeUndefined();
  expect(slots.take(row("c", "v1", "narrow"))).toBeDefined();
  expect(slots.take(row("d", "v2", "narrow"))).toBeUndefined();
  expect(slots.take(row("e", "v2", "west"))).toBeDefined();
  expect(slots.take(row("f", "v3", "east"))).toBeUndefined();
});

test("a job that pauses makes room, keeps its volume, and goes on when there is room again", async () => {
  const slots = new JobSlots({ node: 1, location: () => 1 });
  const paused = slots.take(row("a", "v1", "west"));
  if (paused === undefined) throw new Error("no slot");
  slots.pause(paused);
  expect(slots.take(row("b", "v1", "west"))).toBeUndefined();
  const other = slots.take(row("c", "v2", "west"));
  if (other === undefined) throw new Error("no slot");
  let isOn = false;
  const resumed = slots.resume(paused, never).then(() => {
    isOn = true;
  });
  await settledTasks();
  expect(isOn).toBe(false);
  slots.drop(other);
  await resumed;
  expect(slots.take(row("d", "v3", "west"))).toBeUndefined();
});

test("whoever is asked to stop does not wait for room", async () => {
  const slots = new JobSlots({ node: 1, location: () => 1 });
  const paused = slots.take(row("a", "v1", "west"));
  if (paused === undefined) throw new Error("no slot");
  slots.pause(paused);
  slots.take(row("b", "v2", "west"));
  const stop = new AbortController();
  const resumed = slots.resume(paused, stop.signal);
  stop.abort();
  await resumed;
});
