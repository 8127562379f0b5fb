import { createHash } from "node:crypto";
import { beforeEach, expect, test } from "@jest/globals";
import { FakeClock, settledTasks } from "../../test/fakes/fake-clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Unit } from "../domain/plan.ts";
import type { Staging } from "../storage/backend.ts";
import { StagingSession } from "./staging-session.ts";

const block = 4096;
const units: readonly Unit[] = [
  [
    [0, 2 * block, 1],
    [2 * block, block, 0],
  ],
  [[4 * block, block, 1]],
];
const torn = new LongshoreError("StreamTorn", "torn");

let image: Buffer;
let clock: FakeClock;
let session: StagingSession;

beforeEach(() => {
  image = Buffer.alloc(8 * block, 0xff);
  clock = new FakeClock();
  const staging: Staging = {
    sizeBytes: image.length,
    write: async (offset, data) => void image.set(data, offset),
    punch: async ({ offset, length }) => void image.fill(0, offset, offset + length),
    sync: async () => undefined,
    readBack: async (offset, into) => {
      into.set(image.subarray(offset, offset + into.length));
      return "memory";
    },
    close: async () => undefined,
  };
  session = new StagingSession(staging, units, clock);
});

const digest = (...pieces: Uint8Array[]) => {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("hex");
};

async function bring(lane: ReturnType<StagingSession["openLane"]>, unit: number, offset: number, data: Buffer) {
  lane.accept({ unit, offset, length: data.length });
  await lane.write(unit, offset, data);
}

test("a unit counts when all its bytes have come, its holes are punched, and it reads back as it was sent", async () => {
  const lane = session.openLane(0);
  const waiting = session.received(0, [0]);
  await bring(lane, 0, 0, Buffer.alloc(block, 1));
  await bring(lane, 0, block, Buffer.alloc(block, 2));
  await waiting;
  const expected = digest(Buffer.alloc(block, 1), Buffer.alloc(block, 2));
  expect(await session.settle([{ index: 0, digest: expected }])).toEqual({
    good: [{ unit: 0, digest: expected, verified: "memory" }],
    damaged: [],
  });
  expect(image.subarray(2 * block, 3 * block).equals(Buffer.alloc(block))).toBe(true);
  expect(await session.settle([{ index: 0, digest: digest() }])).toEqual({ good: [], damaged: [0] });
});

test.each([
  ["outside its unit", { unit: 1, offset: 0, length: block }],
  ["over the edge of an extent", { unit: 0, offset: block, length: 2 * block }],
  ["in a hole", { unit: 0, offset: 2 * block, length: block }],
  ["of a unit the plan has not", { unit: 2, offset: 0, length: block }],
])("a frame %s is refused", (_what, frame) => {
  expect(() => session.openLane(0).accept(frame)).toThrow(expect.objectContaining({ code: "BadRequest" }));
});

test("more than a unit's bytes, or bytes of a unit that is stored already, are refused", async () => {
  const lane = session.openLane(0);
  lane.accept({ unit: 1, offset: 4 * block, length: block });
  expect(() => lane.accept({ unit: 1, offset: 4 * block, length: block })).toThrow("not in unit 1's plan");
  session.keep([{ unit: 0 }]);
  expect(() => lane.accept({ unit: 0, offset: 0, length: block })).toThrow("stored already");
});

test("what an earlier lane of the same number does late does not concern the new one", async () => {
  const old = session.openLane(0);
  old.accept({ unit: 1, offset: 4 * block, length: block });
  const lane = session.openLane(0);
  const waiting = session.received(0, [1]);
  old.broken?.(torn);
  await expect(old.write(1, 4 * block, Buffer.alloc(block, 9))).rejects.toMatchObject({ code: "StreamTorn" });
  await bring(lane, 1, 4 * block, Buffer.alloc(block, 3));
  await waiting;
  expect(image[4 * block]).toBe(3);
});

test("whoever waits for a unit learns why its lane broke, that nothing came for too long, or that the term ended", async () => {
  const lane = session.openLane(0);
  const broken = session.received(0, [1]);
  lane.broken?.(new LongshoreError("DiskFull", "full"));
  await expect(broken).rejects.toMatchObject({ code: "DiskFull" });

  session.openLane(1);
  const silent = expect(session.received(1, [1])).rejects.toMatchObject({ code: "StreamTorn" });
  await clock.advance(21_000);
  await silent;

  session.openLane(2);
  const ended = expect(session.received(2, [1])).rejects.toMatchObject({ code: "StreamTorn" });
  await settledTasks();
  await session.close();
  await ended;
  await expect(session.settle([])).rejects.toMatchObject({ code: "TermLost" });
});
