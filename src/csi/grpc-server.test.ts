import { existsSync } from "node:fs";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { type CsiClient, controller, openCsiClient, snapshotMetadata } from "../../test/fakes/csi-client.ts";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { systemClock } from "../base/clock.ts";
import { openLog } from "../base/log.ts";
import { openMetrics } from "../base/metrics.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { CreateVolumeRequest, SnapshotMetadataResponse } from "./csi-messages.ts";
import { type GrpcServer, type GrpcService, openGrpcServer } from "./grpc-server.ts";
import { CsiError } from "./status.ts";

let folder: TemporaryFolder;
let endpoint: string;
const opened: { close(): unknown }[] = [];
const lines: Record<string, unknown>[] = [];
const metrics = openMetrics();

beforeEach(async () => {
  folder = await temporaryFolder("grpc");
  endpoint = `unix://${join(folder.path, "csi.sock")}`;
  lines.length = 0;
});

afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
  await folder.remove();
});

interface Served {
  readonly server: GrpcServer;
  readonly client: CsiClient;
}

async function serve(service: Omit<GrpcService, "calls">, calls: GrpcService["calls"]): Promise<Served> {
  const sink = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const log = openLog({ name: "test", level: "debug" }, sink);
  const services = [{ ...service, calls }];
  const server = await openGrpcServer({ endpoint, services, log, clock: systemClock, metrics });
  const client = openCsiClient(endpoint, service);
  opened.push(server, client);
  return { server, client };
}

describe("a call", () => {
  test("has what was not sent as its default, and 64-bit numbers as numbers", async () => {
    const requests: CreateVolumeRequest[] = [];
    const { client } = await serve(controller, {
      async CreateVolume(request: CreateVolumeRequest) {
        requests.push(request);
        return { volume: { volumeId: "v", capacityBytes: 2 ** 50, contentSource: request.volumeContentSource } };
      },
    });
    const accessMode = { mode: "SINGLE_NODE_WRITER" };
    const answer = await client.call("CreateVolume", {
      name: "pvc-1",
      capacityRange: { requiredBytes: 2 ** 50 },
      volumeCapabilities: [{ accessMode, mount: {} }],
    });
    expect(requests).toEqual([
      {
        name: "pvc-1",
        capacityRange: { requiredBytes: 2 ** 50, limitBytes: 0 },
        volumeCapabilities: [
          { accessMode, accessType: "mount", mount: { fsType: "", mountFlags: [], volumeMountGroup: "" } },
        ],
        parameters: {},
        secrets: {},
        volumeContentSource: null,
        accessibilityRequirements: null,
        mutableParameters: {},
      },
    ]);
    expect(answer).toMatchObject({ volume: { volumeId: "v", capacityBytes: 2 ** 50, contentSource: null } });
  });

  test("tells which kind of source was sent", async () => {
    const { client } = await serve(controller, {
      CreateVolume: async ({ volumeContentSource }: CreateVolumeRequest) => ({
        volume: { volumeId: volumeContentSource?.type, contentSource: volumeContentSource },
      }),
    });
    const volumeContentSource = { snapshot: { snapshotId: "pvc-1/s1" } };
    expect(await client.call("CreateVolume", { name: "x", volumeContentSource })).toMatchObject({
      volume: { volumeId: "snapshot", contentSource: volumeContentSource },
    });
  });

  test.each([
    [
      new LongshoreError("NotFound", "no volume größe"),
      status.NOT_FOUND,
      "no volume größe. Check the name; list the collection to see what exists.",
    ],
    [
      new LongshoreError("DiskFull", "full"),
      status.RESOURCE_EXHAUSTED,
      "full. Free space on the node's storage, or raise its size.",
    ],
    [new CsiError("ABORTED", "50 % done\nand a line"), status.ABORTED, "50 % done\nand a line"],
    [new TypeError("x is undefined"), status.INTERNAL, "a defect in Longshore; the driver's log has the details"],
  ])("that fails with %s has its code and its message", async (error, code, details) => {
    const { client } = await serve(controller, { DeleteVolume: () => Promise.reject(error) });
    await expect(client.call("DeleteVolume", { volumeId: "a" })).rejects.toMatchObject({ code, details });
  });

  test("that is not served is UNIMPLEMENTED", async () => {
    const { client } = await serve(controller, { DeleteVolume: async () => ({}) });
    await expect(client.call("ListVolumes")).rejects.toMatchObject({ code: status.UNIMPLEMENTED });
  });

  test("is told in one line and counted, with what it was about and nothing else of it", async () => {
    const { client } = await serve(controller, {
      DeleteVolume: async ({ volumeId }: { volumeId: string }) => {
        if (volumeId === "b") throw new CsiError("FAILED_PRECONDITION", "in use");
        return {};
      },
      ListVolumes: async () => ({}),
    });
    await client.call("DeleteVolume", { volumeId: "a", secrets: { password: "hidden" } });
    await client.call("DeleteVolume", { volumeId: "b" }).catch(() => undefined);
    await client.call("ListVolumes");
    const told = lines.map((line) => [line.level, line.method, line.volumeId, line.outcome, line.problem]);
    expect(told).toEqual([
      ["info", "DeleteVolume", "a", "OK", undefined],
      ["info", "DeleteVolume", "b", "FAILED_PRECONDITION", "in use"],
      ["debug", "ListVolumes", undefined, "OK", undefined],
    ]);
    expect(JSON.stringify(lines)).not.toContain("hidden");
    expect(await metrics.render()).toMatch(/longshore_csi_calls_total\{method="DeleteVolume",code="OK"\} [1-9]/);
  });

  test("whose deadline passes is stopped at its next step", async () => {
    const stopped = Promise.withResolvers<unknown>();
    let isBegun = false;
    const { client } = await serve(controller, {
      DeleteVolume: (_request: object, signal: AbortSignal) =>
        new Promise<object>((_, reject) => {
          isBegun = true;
          signal.addEventListener("abort", () => {
            stopped.resolve(signal.reason);
            reject(signal.reason);
          });
        }),
    });
    // One whose time is over before it has arrived, on a machine that is busy, is not begun.
    for (let deadlineMs = 100; !isBegun; deadlineMs *= 2) {
      const called = client.call("DeleteVolume", { volumeId: "a" }, { deadlineMs });
      await expect(called).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
    }
    expect(await stopped.promise).toMatchObject({ code: "CANCELLED" });
  });

  test("many at once are carried out at once", async () => {
    const all = Promise.withResolvers<void>();
    let waiting = 0;
    const { client } = await serve(controller, {
      async DeleteVolume() {
        waiting++;
        if (waiting === 100) all.resolve();
        await all.promise;
        return {};
      },
    });
    const names = Array.from({ length: 100 }, (_, index) => `v${index}`);
    await Promise.all(names.map((volumeId) => client.call("DeleteVolume", { volumeId })));
    expect(waiting).toBe(100);
  });
});

describe("a stream", () => {
  const answer = (at: number): SnapshotMetadataResponse => ({
    blockMetadataType: "VARIABLE_LENGTH",
    volumeCapacityBytes: 4096,
    blockMetadata: [{ byteOffset: at, sizeBytes: 1 }],
  });

  async function read(answers: AsyncIterable<SnapshotMetadataResponse>): Promise<number[]> {
    const offsets: number[] = [];
    for await (const { blockMetadata } of answers) offsets.push(...blockMetadata.map(({ byteOffset }) => byteOffset));
    return offsets;
  }

  test("comes whole and in order, however much it is", async () => {
    const { client } = await serve(snapshotMetadata, {
      async *GetMetadataAllocated() {
        for (let at = 0; at < 1000; at++) yield answer(at);
      },
    });
    expect(await read(client.stream("GetMetadataAllocated"))).toEqual(Array.from({ length: 1000 }, (_, at) => at));
  });

  test("that fails in the middle ends with the code", async () => {
    const { client } = await serve(snapshotMetadata, {
      async *GetMetadataAllocated() {
        yield answer(0);
        throw new LongshoreError("SnapshotGone", "it was deleted");
      },
    });
    const reading = read(client.stream("GetMetadataAllocated"));
    await expect(reading).rejects.toMatchObject({
      code: status.NOT_FOUND,
      details: expect.stringMatching(/^it was deleted\. /),
    });
    expect(lines.at(-1)).toMatchObject({ method: "GetMetadataAllocated", outcome: "NOT_FOUND" });
  });

  test("that nobody reads any more is not produced any further", async () => {
    const ended = Promise.withResolvers<void>();
    const { client } = await serve(snapshotMetadata, {
      async *GetMetadataAllocated(_request: object, signal: AbortSignal) {
        try {
          for (let at = 0; ; at++) {
            yield answer(at);
            signal.throwIfAborted();
          }
        } finally {
          ended.resolve();
        }
      },
    });
    const answers = client.stream<SnapshotMetadataResponse>("GetMetadataAllocated");
    for await (const { blockMetadata } of answers) {
      expect(blockMetadata).toHaveLength(1);
      break;
    }
    await ended.promise;
  });
});

describe("the server", () => {
  const nothing = { DeleteVolume: async () => ({}) };

  test("lets what is under way end, and leaves no socket", async () => {
    const begun = Promise.withResolvers<void>();
    const finish = Promise.withResolvers<void>();
    const { server, client } = await serve(controller, {
      async DeleteVolume() {
        begun.resolve();
        await finish.promise;
        return {};
      },
    });
    const called = client.call("DeleteVolume", { volumeId: "a" });
    await begun.promise;
    const closed = server.close();
    finish.resolve();
    expect(await called).toEqual({});
    await closed;
    expect(existsSync(endpoint.replace("unix://", ""))).toBe(false);
  });

  test("does not take the socket of another one, and serves it once that has gone", async () => {
    const { server } = await serve(controller, nothing);
    await expect(serve(controller, nothing)).rejects.toMatchObject({ code: "InUse" });
    await server.close();
    const { client } = await serve(controller, nothing);
    expect(await client.call("DeleteVolume", { volumeId: "a" })).toEqual({});
  });

  test("refuses an endpoint whose folder is missing", async () => {
    endpoint = `unix://${join(folder.path, "missing", "csi.sock")}`;
    await expect(serve(controller, nothing)).rejects.toMatchObject({ code: "BadRequest" });
  });

  test("refuses a call that the interface does not have", async () => {
    await expect(serve(controller, { MakeCoffee: async () => ({}) })).rejects.toThrow("has no call MakeCoffee");
  });
});
