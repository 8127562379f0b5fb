import { describe, expect, test } from "@jest/globals";
import { type Dice, seededDice, systemDice } from "./dice.ts";

describe.each<[string, Dice]>([
  ["the system's", systemDice],
  ["seeded", seededDice(7)],
])("%s dice", (_name, dice) => {
  test("throw numbers in [0, 1) that fill the range evenly", () => {
    const tenths = new Array<number>(10).fill(0);
    for (let index = 0; index < 10_000; index++) {
      const thrown = dice.random();
      expect(thrown >= 0 && thrown < 1).toBe(true);
      const tenth = Math.floor(thrown * 10);
      tenths[tenth] = (tenths[tenth] ?? 0) + 1;
    }
    // Each tenth expects 1000 with a deviation of 30; 300 away is beyond any luck.
    for (const count of tenths) expect(Math.abs(count - 1000)).toBeLessThan(300);
  });

  test("give hexadecimal of the length asked for, and no repeats", () => {
    const ids = new Set(Array.from({ length: 1000 }, () => dice.hex(16)));
    expect(ids.size).toBe(1000);
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{32}$/);
    expect(dice.hex(0)).toBe("");
  });

  test("give version 4 UUIDs", () => {
    for (let index = 0; index < 100; index++) {
      expect(dice.uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
  });
});

test("one seed gives the same throws again, another seed gives others", () => {
  const throwsOf = (seed: number) => {
    const dice = seededDice(seed);
    return [dice.random(), dice.hex(8), dice.uuid(), dice.random()].join(" ");
  };
  expect(throwsOf(42)).toBe(throwsOf(42));
  expect(throwsOf(42)).not.toBe(throwsOf(43));
});
