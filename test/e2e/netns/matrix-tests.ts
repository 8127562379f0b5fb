// Declares the tests of the fault matrix for one kind of fault; each kind has a file of its own, so that they run side by side.
import { afterAll, afterEach, describe } from "@jest/globals";
import { needs } from "../../needs.ts";
import { type Cell, cells, type Fault, runCell } from "./fault-matrix.ts";
import { GroupVolumes } from "./group-volumes.ts";
import { openSites, type Sites } from "./sites.ts";

const testMsMax = 600_000;

/** Cells that cannot be as the others, each with the reason; `FAULT VICTIM BARRIER`. There may be three of them at most. */
export const excused: ReadonlyMap<string, string> = new Map();

/** One set of clusters for all cells of a fault: each cell is a further job of the same group. */
export function declareMatrix(fault: Fault): void {
  describe(`a group with two homes, when one of its agents meets a ${fault}`, () => {
    let sites: Sites | undefined;
    let group: GroupVolumes | undefined;
    const told: string[] = [];
    const open = async () => {
      sites ??= await openSites();
      if (group === undefined) {
        const made = await GroupVolumes.make(sites, "group");
        await made.migrate();
        group = made;
      }
      return { sites, group };
    };
    // Whatever a failed cell has left as it was is not the next cell's.
    afterEach(async () => sites?.ready());
    afterAll(async () => {
      await sites?.close();
      if (told.length > 0) process.stdout.write(`${told.join("\n")}\n`);
    });
    for (const cell of cells.filter((one) => one.fault === fault)) {
      const name = nameOf(cell);
      if (excused.has(name)) continue;
      const run = async () => {
        const world = await open();
        const beganMs = performance.now();
        await runCell(world.sites, world.group, cell);
        told.push(`  ${name.padEnd(36)} ${((performance.now() - beganMs) / 1000).toFixed(1)} s`);
      };
      needs("netns")(`the ${cell.victim} at ${cell.barrier}: ends well, and leaves nothing`, run, testMsMax);
    }
  });
}

function nameOf({ fault, victim, barrier }: Cell): string {
  return `${fault} ${victim} ${barrier}`;
}
