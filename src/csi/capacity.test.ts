import { expect, test } from "@jest/globals";
import { block, mounted } from "../../test/fakes/csi-requests.ts";
import { type FakeStorageCluster, fakeStorageCluster } from "../../test/fakes/fake-storage-cluster.ts";
import { capacityOf } from "./capacity.ts";
import type { GetCapacityRequest } from "./csi-messages.ts";
import { topologyOf } from "./topology.ts";

const mebibyte = 2 ** 20;

/** Two agents, with 3 and 5 MiB free and a little more. */
function cluster(): FakeStorageCluster {
  const found = fakeStorageCluster(2);
  for (const [index, agent] of found.agents.entries()) agent.view.freeBytes = (3 + 2 * index) * mebibyte + 1;
  return found;
}

function capacity({ api }: FakeStorageCluster, fields: Partial<GetCapacityRequest> = {}) {
  return capacityOf(api, { volumeCapabilities: [], parameters: {}, accessibleTopology: null, ...fields });
}

test("of the cluster is what all nodes have, and the largest volume is what one of them has", async () => {
  expect(await capacity(cluster())).toEqual({
    availableCapacity: 8 * mebibyte,
    maximumVolumeSize: { value: 5 * mebibyte },
    minimumVolumeSize: { value: 4096 },
  });
});

test.each([
  ["node-1", 3 * mebibyte],
  ["node-2", 5 * mebibyte],
  ["node-9", 0],
])("of %s is %i bytes", async (node, bytes) => {
  expect(await capacity(cluster(), { accessibleTopology: topologyOf(node) })).toMatchObject({
    availableCapacity: bytes,
    maximumVolumeSize: { value: bytes },
  });
});

test("of a node whose agent does not answer is nothing", async () => {
  const found = cluster();
  const [first] = found.agents;
  if (first !== undefined) found.silent.add(first);
  expect(await capacity(found)).toMatchObject({ availableCapacity: 5 * mebibyte });
  expect(await capacity(found, { accessibleTopology: topologyOf("node-1") })).toMatchObject({ availableCapacity: 0 });
});

test("tells the smallest volume that is of use", async () => {
  const xfs = { ...mounted, mount: { fsType: "xfs", mountFlags: [], volumeMountGroup: "" } };
  expect((await capacity(cluster(), { volumeCapabilities: [xfs] })).minimumVolumeSize.value).toBe(300 * mebibyte);
  expect((await capacity(cluster(), { volumeCapabilities: [block] })).minimumVolumeSize.value).toBe(4096);
});

test("is told without an access mode as well, as csi-provisioner asks", async () => {
  const parameters = { "csi.storage.k8s.io/fstype": "xfs", migrationEnable: "true" };
  const accessibleTopology = topologyOf("node-2");
  for (const accessMode of [{ mode: "UNKNOWN" } as const, null]) {
    const volumeCapabilities = [{ ...mounted, accessMode }];
    const told = await capacity(cluster(), { volumeCapabilities, parameters, accessibleTopology });
    expect(told).toMatchObject({ availableCapacity: 5 * mebibyte, maximumVolumeSize: { value: 5 * mebibyte } });
  }
});

test("for parameters or capabilities that nobody knows is refused", async () => {
  const wrong = capacity(cluster(), { parameters: { type: "ssd" } });
  await expect(wrong).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  const shared = { ...mounted, accessMode: { mode: "MULTI_NODE_MULTI_WRITER" as const } };
  const many = capacity(cluster(), { volumeCapabilities: [shared] });
  await expect(many).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});
