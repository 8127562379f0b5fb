import { describe, expect, test } from "@jest/globals";
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

describe("what a group's job reserves", () => {
  const shop = { job: "shop", location: "west", owners: ["v1", "v2"] };

  test("waits until no job of any of its volumes to that location is under way, and keeps others from it then", async () => {
    const slots = new JobSlots({ node: 9, location: () => 9 });
    const alone = slots.take(row("alone", "v1", "west"));
    if (alone === undefined) throw new Error("no slot");
    slots.take(row("elsewhere", "v2", "east"));
    expect(slots.inTheWayOf(shop)).toBe("alone");
    let isReserved = false;
    const reserved = slots.reserve(shop, never).then(() => {
      isReserved = true;
    });
    await settledTasks();
    expect(isReserved).toBe(false);
    slots.pause(alone);
    await settledTasks();
    expect(isReserved).toBe(false);
    slots.drop(alone);
    await reserved;
    expect(slots.take(row("later", "v2", "west"))).toBeUndefined();
    await slots.reserve(shop, never);
    slots.release("shop");
    expect(slots.take(row("later", "v2", "west"))).toBeDefined();
  });

  test("counts once with the job's own slot, and is not given past the limits", async () => {
    const slots = new JobSlots({ node: 2, location: () => 2 });
    slots.take(row("shop", "group shop", "west"));
    await slots.reserve(shop, never);
    expect(slots.take(row("other", "v3", "west"))).toBeDefined();
    expect(slots.take(row("more", "v4", "west"))).toBeUndefined();
    const impatient = new AbortController();
    const refused = slots.reserve({ job: "bank", location: "west", owners: ["v5"] }, impatient.signal);
    impatient.abort(new Error("waited long enough"));
    await expect(refused).rejects.toThrow("waited long enough");
    slots.release("shop");
    expect(slots.inTheWayOf({ job: "x", location: "west", owners: ["v5"] })).toBeUndefined();
  });

  test("is all of its volumes or none, so that two groups of the same volumes do not wait for each other", async () => {
    const slots = new JobSlots({ node: 9, location: () => 9 });
    await slots.reserve(shop, never);
    const other = slots.reserve({ job: "bank", location: "west", owners: ["v2", "v3"] }, never);
    expect(slots.take(row("alone", "v3", "west"))).toBeDefined();
    slots.release("shop");
    await settledTasks();
    expect(slots.inTheWayOf({ job: "x", location: "west", owners: ["v2"] })).toBeUndefined();
    slots.drop(slots.find("alone") as never);
    await other;
  });
});
