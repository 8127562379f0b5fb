// The few figures that a row of measurements is told by, and the order in which things are measured.
import type { Dice } from "../src/base/dice.ts";

/** The middle value; of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const [below, above] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
  if (below === undefined || above === undefined) throw new RangeError("nothing has no median");
  return (below + above) / 2;
}

/** The values in an order of the dice's choosing; every order is as likely. */
export function shuffled<T>(values: readonly T[], dice: Dice): T[] {
  const order = [...values];
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(dice.random() * (last + 1));
    [order[last], order[other]] = [order[other] as T, order[last] as T];
  }
  return order;
}

/** So many distinct whole numbers below `below`, ascending; every choice is as likely. */
export function distinctBelow(count: number, below: number, dice: Dice): number[] {
  if (count > below) throw new RangeError(`there are no ${count} distinct numbers below ${below}`);
  // Floyd's way: one throw for each number, none repeated.
  const chosen = new Set<number>();
  for (let bound = below - count; bound < below; bound++) {
    const number = Math.floor(dice.random() * (bound + 1));
    chosen.add(chosen.has(number) ? bound : number);
  }
  return [...chosen].sort((a, b) => a - b);
}

/** Spreads `runs` over `passes` as evenly as whole runs allow; no pass is empty. */
export function runsOfPasses(runs: number, passes: number): number[] {
  const count = Math.min(runs, passes);
  return Array.from(
    { length: count },
    (_, pass) => Math.floor((runs * (pass + 1)) / count) - Math.floor((runs * pass) / count),
  );
}
