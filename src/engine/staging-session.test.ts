import { createHash } from "node:crypto";
import { beforeEach, expect, test } from "@jest/globals";
import { settledTasks } from "../../test/fakes/fake-clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { UnitList } from "../domain/unit-list.ts";
import type { Staging } from "../storage/backend.ts";
import { StagingSession } from "./staging-session.ts";

const block = 4096;
const units = new UnitList([
  [
    [0, 2 * block, 1],
    [2 * block, block, 0],
  ],
  [[4 * block, block, 1]],
  [[6 * block, block, 0]],
]);
const torn = new LongshoreError("StreamTorn", "torn");

let image: Buffer;
let session: StagingSession;

beforeEach(() => {
  image = Buffer.alloc(8 * block, 0xff);
  const staging: Staging = {
    sizeBytes: image.length,
    isSealed: false,
    fd: -1,
    write: async (offset, data) => void image.set(data, offset),
    punch: async ({ offset, length }) => void image.fill(0, offset, offset + length),
    writeOut: async () => undefined,
    sync: async () => undefined,
    digest: async (extents) => ({
      digest: digest(...extents.map(({ offset, length }) => image.subarray(offset, offset + length))),
      verified: "memory",
    }),
    close: async () => undefined,
  };
  session = new StagingSession(staging, units);
});

const digest = (...pieces: Uint8Array[]) => {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("hex");
};

type Sink = ReturnType<StagingSession["openLane"]>;

async function bring(lane: Sink, unit: number, ...pieces: Buffer[]) {
  const [[start]] = lane.begin(unit) as [[number, number]];
  for (const [index, piece] of pieces.entries()) await lane.write(unit, start + index * block, piece);
  lane.arrived(unit);
}

test("a unit counts when all its bytes have come, its holes are punched, and it reads back as it was sent", async () => {
  const lane = session.openLane(0);
  const waiting = session.received(0, [0]);
  await bring(lane, 0, Buffer.alloc(block, 1), Buffer.alloc(block, 2));
  await waiting;
  const expected = digest(Buffer.alloc(block, 1), Buffer.alloc(block, 2));
  expect(await session.settle([{ index: 0, digest: expected }], "media")).toEqual({
    good: [{ unit: 0, digest: expected, verified: "memory" }],
    damaged: [],
  });
  expect(image.subarray(2 * block, 3 * block).equals(Buffer.alloc(block))).toBe(true);
  expect(await session.settle([{ index: 0, digest: digest() }], "media")).toEqual({ good: [], damaged: [0] });
});

test("a unit that is not to be read back counts as it came, and says so", async () => {
  await bring(session.openLane(0), 1, Buffer.alloc(block, 1));
  expect(await session.settle([{ index: 1 }], "none")).toEqual({
    good: [{ unit: 1, digest: "", verified: "none" }],
    damaged: [],
  });
});

test("a unit without a digest is damaged where one is asked for", async () => {
  await bring(session.openLane(0), 1, Buffer.alloc(block, 1));
  expect(await session.settle([{ index: 1 }], "media")).toEqual({ good: [], damaged: [1] });
});

test("the places of a unit are those of the plan; holes are not among them", () => {
  expect(session.openLane(0).begin(0)).toEqual([[0, 2 * block]]);
});

test.each([
  ["that the plan has not", 3, "the plan has 3 units"],
  ["that has nothing but holes", 2, "no data"],
])("a unit %s is refused", (_what, unit, message) => {
  expect(() => session.openLane(0).begin(unit)).toThrow(message);
  expect(() => session.openLane(0).begin(unit)).toThrow(expect.objectContaining({ code: "BadRequest" }));
});

test("a unit that is under way, or stored already, is refused", () => {
  const lane = session.openLane(0);
  lane.begin(1);
  expect(() => lane.begin(1)).toThrow("under way already");
  session.keep([{ unit: 0 }]);
  expect(() => lane.begin(0)).toThrow("stored already");
});

test("a unit that arrived damaged may come again", async () => {
  const lane = session.openLane(0);
  await bring(lane, 1, Buffer.alloc(block, 9));
  await session.received(0, [1]);
  await bring(lane, 1, Buffer.alloc(block, 3));
  await session.received(0, [1]);
  expect(image[4 * block]).toBe(3);
});

test("what an earlier lane of the same number does late does not concern the new one", async () => {
  const old = session.openLane(0);
  old.begin(1);
  const lane = session.openLane(0);
  const waiting = session.received(0, [1]);
  old.broken?.(torn);
  await expect(old.write(1, 4 * block, Buffer.alloc(block, 9))).rejects.toMatchObject({ code: "StreamTorn" });
  await bring(lane, 1, Buffer.alloc(block, 3));
  await waiting;
  expect(image[4 * block]).toBe(3);
});

test("whoever waits for a unit learns why its lane broke, or that the term ended", async () => {
  const lane = session.openLane(0);
  const broken = session.received(0, [1]);
  lane.broken?.(new LongshoreError("DiskFull", "full"));
  await expect(broken).rejects.toMatchObject({ code: "DiskFull" });

  session.openLane(2);
  const ended = expect(session.received(2, [1])).rejects.toMatchObject({ code: "StreamTorn" });
  await settledTasks();
  await session.close();
  await ended;
  await expect(session.settle([], "media")).rejects.toMatchObject({ code: "TermLost" });
});
