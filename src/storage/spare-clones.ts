// Clones of points, made before anybody has asked for them, for staging images to be made of. They have no name, so nothing
// can find them, and whatever ends the process takes them away.

import * as fs from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../base/clock.ts";
import { namelessFlags } from "../native/file-calls.ts";
import type { BasePoint } from "./backend.ts";

/** A spare nobody has asked for by then would keep the blocks of a point that may be gone. */
const keptMs = 60_000;

interface Spare {
  readonly base: BasePoint;
  /** Undefined when it could not be made. */
  readonly image: Promise<fs.FileHandle | undefined>;
  readonly used: AbortController;
}

/** One spare for each volume that is going to have a staging image. */
export class SpareClones {
  private readonly clock: Clock;
  private readonly spares = new Map<string, Spare>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Begins to make one of `base` in `folder`, unless it is there already. A failure is told by {@link take}, as having none. */
  make(volume: string, base: BasePoint, folder: string, fill: (image: fs.FileHandle) => Promise<void>): void {
    const present = this.spares.get(volume);
    if (isDeepStrictEqual(present?.base, base)) return;
    const used = new AbortController();
    const image = nameless(folder, fill).catch(() => undefined);
    const before = this.drop(volume);
    this.spares.set(volume, { base, image, used });
    // A file without a name that could not be closed is nobody's loss.
    Promise.all([before, this.clock.sleep(keptMs, used.signal).then(() => this.drop(volume))]).catch(() => undefined);
  }

  /** The spare of the volume, if it is one of `base`, for the caller to close; any other is dropped. */
  async take(volume: string, base: BasePoint | undefined): Promise<fs.FileHandle | undefined> {
    const spare = this.spares.get(volume);
    if (spare === undefined || !isDeepStrictEqual(spare.base, base)) {
      await this.drop(volume);
      return undefined;
    }
    this.spares.delete(volume);
    spare.used.abort();
    return spare.image;
  }

  async close(): Promise<void> {
    await Promise.all([...this.spares.keys()].map((volume) => this.drop(volume)));
  }

  private async drop(volume: string): Promise<void> {
    const spare = this.spares.get(volume);
    this.spares.delete(volume);
    spare?.used.abort();
    await (await spare?.image)?.close();
  }
}

async function nameless(folder: string, fill: (image: fs.FileHandle) => Promise<void>): Promise<fs.FileHandle> {
  const image = await fs.open(folder, namelessFlags, 0o000);
  try {
    await fill(image);
    await image.sync();
    return image;
  } catch (error) {
    await image.close();
    throw error;
  }
}
