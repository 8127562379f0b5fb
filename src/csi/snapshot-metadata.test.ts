import { beforeEach, describe, expect, test } from "@jest/globals";
import type { FakeAgent } from "../../test/fakes/fake-agent.ts";
import { type FakeStorageCluster, fakeStorageCluster } from "../../test/fakes/fake-storage-cluster.ts";
import type { SnapshotMetadataResponse } from "./csi-messages.ts";
import { metadataCalls } from "./snapshot-metadata.ts";

const block = 4096;
const mebibyte = 2 ** 20;
const never = new AbortController().signal;

let cluster: FakeStorageCluster;
let agent: FakeAgent;
let calls: ReturnType<typeof metadataCalls>;

/** pvc-1 with s1 (blocks 0, 2 and 4), and s2 behind it (block 2 written anew, block 4 discarded, block 300 new, grown). */
beforeEach(async () => {
  cluster = fakeStorageCluster(2);
  [, agent] = cluster.agents as [FakeAgent, FakeAgent];
  calls = metadataCalls(cluster.api);
  await agent.putVolume("pvc-1", { sizeBytes: mebibyte });
  for (const at of [0, 2, 4]) agent.write("pvc-1", at * block, block);
  await agent.putSnapshot("pvc-1", "s1");
  agent.write("pvc-1", 2 * block, block);
  agent.discard("pvc-1", 4 * block, block);
  await agent.putVolume("pvc-1", { sizeBytes: 2 * mebibyte });
  agent.write("pvc-1", 300 * block, block);
  await agent.putSnapshot("pvc-1", "s2");
  await agent.putVolume("pvc-2", { sizeBytes: mebibyte });
  await agent.putSnapshot("pvc-2", "s1");
});

interface Paging {
  readonly startingOffset?: number;
  readonly maxResults?: number;
}

const allocated = (snapshotId: string, paging: Paging = {}) =>
  collect(calls.GetMetadataAllocated({ snapshotId, startingOffset: 0, maxResults: 0, ...paging }, never));
const delta = (baseSnapshotId: string, targetSnapshotId: string, paging: Paging = {}) =>
  collect(
    calls.GetMetadataDelta({ baseSnapshotId, targetSnapshotId, startingOffset: 0, maxResults: 0, ...paging }, never),
  );

async function collect(answers: AsyncIterable<SnapshotMetadataResponse>): Promise<SnapshotMetadataResponse[]> {
  const all: SnapshotMetadataResponse[] = [];
  for await (const answer of answers) all.push(answer);
  return all;
}

/** The blocks told, answer by answer. */
const blocksIn = (answers: readonly SnapshotMetadataResponse[]) =>
  answers.map(({ blockMetadata }) => blockMetadata.map(({ byteOffset }) => byteOffset / block));

describe("GetMetadataAllocated", () => {
  test("tells what a snapshot has, and how large it is", async () => {
    expect(await allocated("pvc-1/s1")).toEqual([
      {
        blockMetadataType: "VARIABLE_LENGTH",
        volumeCapacityBytes: mebibyte,
        blockMetadata: [0, 2, 4].map((at) => ({ byteOffset: at * block, sizeBytes: block })),
      },
    ]);
  });

  test("tells the size of a snapshot that has nothing", async () => {
    expect(await allocated("pvc-2/s1")).toEqual([
      { blockMetadataType: "VARIABLE_LENGTH", volumeCapacityBytes: mebibyte, blockMetadata: [] },
    ]);
  });

  test.each<[Paging, number[][]]>([
    // asked for, the blocks of each answer
    [{ maxResults: 2 }, [[0, 2], [4]]],
    [{ maxResults: 1 }, [[0], [2], [4]]],
    [{ maxResults: 100_000 }, [[0, 2, 4]]],
    [{ startingOffset: block }, [[2, 4]]],
    [{ startingOffset: 2 * block + 1 }, [[2 + 1 / block, 4]]],
    [{ startingOffset: mebibyte }, [[]]],
  ])("with %j tells the blocks %j", async (paging, blocks) => {
    expect(blocksIn(await allocated("pvc-1/s1", paging))).toEqual(blocks);
  });
});

describe("GetMetadataDelta", () => {
  test("tells what differs from the base, data and holes alike", async () => {
    expect(blocksIn(await delta("pvc-1/s1", "pvc-1/s2"))).toEqual([[2, 4, 300]]);
    expect((await delta("pvc-1/s1", "pvc-1/s2"))[0]?.volumeCapacityBytes).toBe(2 * mebibyte);
    expect(blocksIn(await delta("pvc-1/s1", "pvc-1/s2", { maxResults: 2, startingOffset: 4 * block }))).toEqual([
      [4, 300],
    ]);
  });

  test("of a snapshot from itself is nothing", async () => {
    expect(blocksIn(await delta("pvc-1/s1", "pvc-1/s1"))).toEqual([[]]);
  });

  test.each([
    ["pvc-1/s2", "pvc-1/s1", "INVALID_ARGUMENT"],
    ["pvc-2/s1", "pvc-1/s2", "INVALID_ARGUMENT"],
    ["", "pvc-1/s2", "INVALID_ARGUMENT"],
    ["pvc-1/s1", "", "INVALID_ARGUMENT"],
    ["pvc-1/s9", "pvc-1/s2", "NOT_FOUND"],
    ["pvc-1/s1", "pvc-9/s1", "NOT_FOUND"],
  ])("from %j to %j is refused with %s", async (base, target, code) => {
    await expect(delta(base, target)).rejects.toMatchObject({ code });
  });
});

describe("both", () => {
  test.each<[string, Paging, string]>([
    ["", {}, "INVALID_ARGUMENT"],
    ["nothing", {}, "NOT_FOUND"],
    ["pvc-1/s1", { startingOffset: -1 }, "INVALID_ARGUMENT"],
    ["pvc-1/s1", { maxResults: -1 }, "INVALID_ARGUMENT"],
    ["pvc-1/s1", { startingOffset: mebibyte + 1 }, "OUT_OF_RANGE"],
    ["east.pvc-9@latest", {}, "FAILED_PRECONDITION"],
  ])("refuse %j with %j: %s", async (snapshotId, paging, code) => {
    await expect(allocated(snapshotId, paging)).rejects.toMatchObject({ code });
  });

  test("refuse a snapshot whose file is lost, or that is being deleted", async () => {
    agent.loseSnapshot("pvc-1", "s1");
    await expect(allocated("pvc-1/s1")).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await agent.putHold("pvc-1", "s2", "backup");
    await agent.removeSnapshot("pvc-1", "s2");
    await expect(allocated("pvc-1/s2")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("stop when the caller has gone", async () => {
    const gone = new AbortController();
    const request = { snapshotId: "pvc-1/s1", startingOffset: 0, maxResults: 1 };
    const answers = calls.GetMetadataAllocated(request, gone.signal);
    const told: SnapshotMetadataResponse[] = [];
    const reading = (async () => {
      for await (const answer of answers) {
        told.push(answer);
        gone.abort(new Error("gone"));
      }
    })();
    await expect(reading).rejects.toThrow("gone");
    expect(told).toHaveLength(1);
  });
});
