// The simulator's storage is a fake of a contract: whatever is asked of it, it answers as a real backend does, step by step.
import * as fs from "node:fs/promises";
import { afterAll, expect, test } from "@jest/globals";
import { codeOf } from "../../src/domain/errors.ts";
import type { ChangedExtent, SealedPoint, Staging, StorageBackend } from "../../src/storage/backend.ts";
import { openBackend } from "../../src/storage/open.ts";
import { temporaryFolder } from "../fakes/temporary-folder.ts";
import { keptBlock } from "./blocks.ts";
import { Chance } from "./chance.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { memoryStorage } from "./memory-storage.ts";

const blockBytes = 4096;
const volumes = ["a", "b", "c"];
const points = ["p", "q", "r", "s"];
const folder = await temporaryFolder("memory-storage");
afterAll(() => folder.remove());

/** One backend, with what a caller of it remembers, and a guest's way to write. */
interface Side {
  readonly backend: StorageBackend;
  readonly sealed: Map<string, SealedPoint>;
  readonly staging: Map<string, Staging>;
  writeLive(volume: string, block: number, content: Buffer): Promise<void>;
}

async function realSide(root: string): Promise<Side> {
  const backend = await openBackend({ kind: "copy", root });
  const writeLive = async (volume: string, block: number, content: Buffer) => {
    const live = await fs.open(backend.livePath(volume), "r+");
    const { size } = await live.stat();
    if ((block + 1) * blockBytes <= size) await live.write(content, 0, blockBytes, block * blockBytes);
    await live.close();
  };
  return { backend, sealed: new Map(), staging: new Map(), writeLive };
}

function memorySide(): Side {
  const disk = new MemoryDisk("fs-test");
  const writeLive = async (volume: string, block: number, content: Buffer) => {
    const image = disk.image({ volume, point: undefined });
    if (image === undefined) throw Object.assign(new Error("no such file"), { code: "ENOENT" });
    if (block < image.blocks.length) image.blocks[block] = keptBlock(content);
  };
  return { backend: memoryStorage(disk), sealed: new Map(), staging: new Map(), writeLive };
}

type Step = (side: Side) => Promise<unknown>;

/** What a step came to, as far as both sides must agree. */
async function outcomeOf(step: Step, side: Side): Promise<unknown> {
  try {
    return await step(side);
  } catch (error) {
    return { refused: codeOf(error) ?? (error as { code?: string }).code ?? (error as Error).name };
  }
}

async function contentOf({ backend }: Side, volume: string, point: SealedPoint): Promise<string> {
  const reader = await backend.openPoint(volume, point);
  const content = Buffer.alloc(reader.sizeBytes);
  await reader.read(0, content);
  await reader.close();
  return content.toString("latin1");
}

/** A hole where nothing was and one where something was are told apart by some, and mean the same. */
function dataOf(extents: Iterable<ChangedExtent>): string {
  return Array.from(extents, ({ kind, offset, length }) => `${kind} ${offset}+${length}`).join(", ");
}

function draw(chance: Chance): Step & { title: string } {
  const [volume, other, point, base] = [
    chance.pick(volumes),
    chance.pick(volumes),
    chance.pick(points),
    chance.pick(points),
  ];
  const sizeBytes = chance.whole(1, 6) * blockBytes;
  const block = chance.whole(0, 6);
  const content = Buffer.alloc(blockBytes, chance.whole(1, 255));
  const hasBase = chance.is(0.5);
  const key = `${volume} ${point}`;
  const nobody: SealedPoint = { point, identity: { inode: "0.0", fsUuid: "nowhere", sizeBytes } };
  const held = (side: Side, of = point) => side.sealed.get(`${volume} ${of}`) ?? nobody;
  const steps: Record<string, Step> = {
    create: ({ backend }) => backend.create(volume, sizeBytes),
    expand: ({ backend }) => backend.expand(volume, sizeBytes),
    remove: ({ backend }) => backend.remove(volume),
    write: (side) => side.writeLive(volume, block, content),
    snapshot: async (side) => {
      const { identity } = await side.backend.snapshot(volume, point);
      side.sealed.set(key, { point, identity });
      return identity.sizeBytes;
    },
    deletePoint: ({ backend }) => backend.deletePoint(volume, point),
    clone: (side) => side.backend.clone({ volume, ...held(side) }, { volume: other, sizeBytes }),
    changed: async (side) => {
      const { mode, extents } = await side.backend.changed(volume, held(side, base), held(side));
      return `${mode.kind}: ${dataOf(extents)}`;
    },
    allocated: async (side) => dataOf((await side.backend.allocated(volume, held(side))).extents),
    read: (side) => contentOf(side, volume, held(side)),
    stage: (side) => side.backend.stage(volume, point, hasBase ? held(side, base) : undefined, sizeBytes),
    openStaging: async (side) => {
      await side.staging.get(key)?.close();
      side.staging.set(key, await side.backend.openStaging(volume, point, sizeBytes));
    },
    "staging.write": async (side) => side.staging.get(key)?.write(block * blockBytes, content),
    "staging.writePart": async (side) =>
      side.staging.get(key)?.write(block * blockBytes + 100, content.subarray(0, 600)),
    "staging.punch": async (side) => side.staging.get(key)?.punch({ offset: block * blockBytes, length: blockBytes }),
    "staging.sync": async (side) => side.staging.get(key)?.sync(),
    "staging.digest": async (side) =>
      (await side.staging.get(key)?.digest([{ offset: block * blockBytes, length: blockBytes }], "memory"))?.digest,
    seal: async (side) => {
      const identity = await side.backend.seal(volume, point);
      side.sealed.set(key, { point, identity });
      return identity.sizeBytes;
    },
    list: async ({ backend }) =>
      (await backend.list())
        .map(({ volume: of, kind, point: name, sizeBytes: bytes }) => [of, kind, name, bytes])
        .sort(),
    quarantine: async ({ backend }) => {
      const found = { volume, kind: "point", point, sizeBytes, allocatedBytes: 0 } as const;
      return (await backend.quarantine(found)).split("/").length > 0;
    },
  };
  const name = chance.pick(Object.keys(steps));
  return Object.assign((side: Side) => (steps[name] as Step)(side), {
    title: `${name} ${key} ${base} ${sizeBytes} ${block}`,
  });
}

test.each([1, 2, 3, 4, 5, 6])("in run %i every answer is that of a real backend", async (seed) => {
  const chance = new Chance(seed);
  const [real, memory] = [await realSide(`${folder.path}/run-${seed}`), memorySide()];
  let agreed = 0;
  for (let round = 0; round < 400; round++) {
    const step = draw(chance);
    const expected = await outcomeOf(step, real);
    expect(`${step.title}: ${JSON.stringify(await outcomeOf(step, memory))}`).toBe(
      `${step.title}: ${JSON.stringify(expected)}`,
    );
    if (!(expected !== null && typeof expected === "object" && "refused" in expected)) agreed += 1;
  }
  await real.backend.close();
  await memory.backend.close();
  // Not only refusals were compared.
  expect(agreed).toBeGreaterThan(100);
});
