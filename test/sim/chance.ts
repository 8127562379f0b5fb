// What a seed decides, in the forms the simulator asks for it.
import { type Dice, seededDice } from "../../src/base/dice.ts";

export class Chance {
  private readonly dice: Dice;

  constructor(seed: number) {
    this.dice = seededDice(seed);
    // Neighbouring seeds begin alike; a few throws take them apart.
    for (let warm = 0; warm < 4; warm++) this.dice.random();
  }

  /** A generator of its own, so that what one part asks for does not move the others. */
  fork(): Chance {
    return new Chance(Math.floor(this.dice.random() * 2 ** 32));
  }

  /** For the engine: ids and nonces that no other life of any agent throws. */
  engineDice(): Dice {
    return seededDice(Math.floor(this.dice.random() * 2 ** 32));
  }

  is(probability: number): boolean {
    return this.dice.random() < probability;
  }

  /** Uniform in [from, to). */
  between(from: number, to: number): number {
    return from + this.dice.random() * (to - from);
  }

  /** A whole number in [from, to]. */
  whole(from: number, to: number): number {
    return from + Math.floor(this.dice.random() * (to - from + 1));
  }

  pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.dice.random() * choices.length)] as T;
  }
}
