import { beforeEach, describe, expect, test } from "@jest/globals";
import { CrashPoint } from "../../test/fakes/crash-point.ts";
import {
  capabilityOf,
  expandRequest,
  type NodeService,
  NodeWorld,
  publishRequest,
  stageRequest,
  stagingOf,
  targetOf,
  type Use,
  unpublishRequest,
  unstageRequest,
} from "../../test/fakes/node-world.ts";
import { LongshoreError } from "../domain/errors.ts";
import { HostError } from "../host/host-error.ts";
import { isIn } from "./topology.ts";

const gibibyte = 2 ** 30;

let world: NodeWorld;
let calls: NodeService["calls"];
let image: string;

beforeEach(async () => {
  world = new NodeWorld();
  calls = world.start().calls;
  image = await world.makeVolume("pvc-1");
});

/** `CODE: message` of the failure, `none` if it succeeded. */
async function failure(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "none",
    (error: { code?: string; message: string }) => `${error.code}: ${error.message}`,
  );
}

const mounts = () => world.host.summary().mounts.map(({ path, type, isReadOnly }) => [path, type, isReadOnly]);
const clean = { notes: {}, devices: [], mounts: [] };
/** What there is of volumes on the node, besides their images. */
const traces = () => {
  const { notes, devices, mounts } = world.host.summary();
  return { notes, devices, mounts };
};

test("a node tells who it is, where its volumes are, and what it can", async () => {
  expect(await calls.NodeGetInfo()).toEqual({
    nodeId: "node-1",
    maxVolumesPerNode: 0,
    accessibleTopology: { segments: { "longshore.dev/node": "node-1" } },
  });
  expect((await calls.NodeGetCapabilities()).capabilities.map(({ rpc }) => rpc.type)).toEqual([
    "STAGE_UNSTAGE_VOLUME",
    "GET_VOLUME_STATS",
    "EXPAND_VOLUME",
    "SINGLE_NODE_MULTI_WRITER",
  ]);
});

test("a node whose name is too long for a label is known by one that fits, to the node and to the controller alike", async () => {
  const node = `worker-1.${"rack-17.".repeat(10)}example.com`;
  const { accessibleTopology } = await world.start(new CrashPoint(), node).calls.NodeGetInfo();
  expect(accessibleTopology.segments["longshore.dev/node"]).toMatch(/^worker-1[a-z0-9.-]{0,54}[a-z0-9]$/);
  expect(isIn(accessibleTopology, node)).toBe(true);
  expect(isIn(accessibleTopology, `${node}.org`)).toBe(false);
});

describe("a volume with a file system", () => {
  test.each(["", "ext4", "xfs", "btrfs"])("of type [%s] comes to its pod, and goes without a trace", async (fsType) => {
    const type = fsType === "" ? "ext4" : fsType;
    for (const _ of ["once", "and once more"]) {
      await calls.NodeStageVolume(stageRequest("pvc-1", { fsType }));
      await calls.NodePublishVolume(publishRequest("pvc-1", { fsType }));
    }
    expect(mounts()).toEqual([
      [stagingOf("pvc-1"), type, false],
      [targetOf("pvc-1"), type, false],
    ]);
    expect(world.host.notes.get("pvc-1")).toMatchObject({ formatting: null, targets: [targetOf("pvc-1")] });
    for (const _ of ["once", "and once more"]) {
      await calls.NodeUnpublishVolume(unpublishRequest("pvc-1"));
      await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    }
    expect(traces()).toEqual(clean);
    expect(world.host.places.has(targetOf("pvc-1"))).toBe(false);
  });

  test.each<[string, string, Use]>([
    ["Block", "Filesystem", {}],
    ["Filesystem", "Block", { isBlock: true }],
  ])("made with volumeMode %s is not staged as %s, and nothing is touched", async (mode, asked, use) => {
    await world.agent.putVolume("pvc-1", { sizeBytes: gibibyte, metadata: { volumeMode: mode } });
    const staged = failure(calls.NodeStageVolume(stageRequest("pvc-1", use)));
    expect(await staged).toMatch(
      new RegExp(`^FAILED_PRECONDITION: .* volumeMode ${mode}, and is not used as ${asked}`),
    );
    expect(traces()).toEqual(clean);
    await calls.NodeStageVolume(stageRequest("pvc-1", { isBlock: mode === "Block" }));
  });

  test("keeps it: it is formatted once, the first time", async () => {
    for (const _ of [1, 2, 3]) {
      await calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "xfs" }));
      await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    }
    expect(world.host.image(image)).toMatchObject({ content: { type: "xfs" }, formats: 1 });
  });

  test("is mounted with what there is when nobody says which", async () => {
    world.host.image(image).content = { kind: "fileSystem", type: "btrfs" };
    world.host.image(image).fileSystemBytes = gibibyte;
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(mounts()).toEqual([[stagingOf("pvc-1"), "btrfs", false]]);
  });

  test("is mounted with the flags of its claim", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1", { flags: ["noatime", "discard"] }));
    expect(world.host.summary().mounts[0]?.flags).toEqual(["noatime", "discard"]);
  });

  test("that is larger than what it was made of grows when it is staged", async () => {
    world.host.image(image).content = { kind: "fileSystem", type: "xfs" };
    world.host.image(image).fileSystemBytes = gibibyte / 2;
    await calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "xfs" }));
    expect(world.host.image(image).fileSystemBytes).toBe(gibibyte);
  });

  test("is asked of the agent once more when what was noted of it is lost, and leaves nothing attached", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    world.host.notes.clear();
    await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    expect(traces()).toEqual(clean);
  });

  test("leaves without its agent", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    world.agent.failure = new LongshoreError("Unreachable", "no agent answers");
    await calls.NodeUnpublishVolume(unpublishRequest("pvc-1"));
    await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    expect(traces()).toEqual(clean);
  });

  test("leaves although its image was deleted", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    world.host.deleteImage(image);
    await world.agent.removeVolume("pvc-1");
    await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    expect(traces()).toEqual(clean);
  });

  test("comes back after the machine was started again, as if it had never been here", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    world.host.reboot();
    const told = await failure(calls.NodePublishVolume(publishRequest("pvc-1")));
    expect(told).toMatch(/^FAILED_PRECONDITION: .*not staged/);
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    expect(mounts()).toHaveLength(2);
    expect(world.host.image(image).formats).toBe(1);
  });

  test("whose format the machine's end interrupted is formatted when it comes back", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "xfs" }));
    const note = world.host.notes.get("pvc-1");
    world.host.reboot();
    world.host.image(image).content = { kind: "other", what: "half of it" };
    if (note !== undefined) world.host.notes.set("pvc-1", { ...note, formatting: "xfs" });
    await calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "xfs" }));
    expect(world.host.image(image)).toMatchObject({ content: { type: "xfs" }, formats: 2 });
  });
});

describe("data is never formatted:", () => {
  const clones: readonly (readonly [string, () => void])[] = [
    [
      "a clone of another cluster's point",
      () => {
        const row = world.agent.volumes.get("pvc-1");
        if (row) row.lineage = { clusterUid: "c", volumeUid: "v", pointId: "0".repeat(32) };
      },
    ],
    [
      "a clone of a volume here",
      () => {
        const row = world.agent.volumes.get("pvc-1");
        if (row) row.from = { volume: "origin" };
      },
    ],
  ];
  test.each(clones)("%s", async (_, make) => {
    make();
    expect(await failure(calls.NodeStageVolume(stageRequest("pvc-1")))).toMatch(/^FAILED_PRECONDITION: .*is a clone/);
    expect(world.host.image(image)).toMatchObject({ content: { kind: "blank" }, formats: 0 });
    world.host.image(image).content = { kind: "fileSystem", type: "ext4" };
    world.host.image(image).fileSystemBytes = gibibyte;
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(world.host.image(image).formats).toBe(0);
  });

  test.each([
    ["another file system", { kind: "fileSystem", type: "xfs" }, /it holds xfs, and ext4 was asked for/],
    ["what is no file system", { kind: "other", what: "LVM2_member" }, /it holds LVM2_member/],
  ] as const)("%s", async (_, content, message) => {
    world.host.image(image).content = content;
    const told = await failure(calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "ext4" })));
    expect(told).toMatch(/^FAILED_PRECONDITION: volume pvc-1 cannot be mounted/);
    expect(told).toMatch(message);
    expect(world.host.image(image)).toMatchObject({ content, formats: 0 });
    expect(mounts()).toEqual([]);
  });

  test("the note of another volume of the same name does not count", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    const note = world.host.notes.get("pvc-1");
    await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    if (note !== undefined) world.host.notes.set("pvc-1", { ...note, uid: "another", formatting: "xfs" });
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(world.host.image(image)).toMatchObject({ content: { type: "ext4" }, formats: 1 });
  });

  test("the note of an image that was replaced does not count", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    const note = world.host.notes.get("pvc-1");
    await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    if (note !== undefined) world.host.notes.set("pvc-1", { ...note, formatting: "ext4" });
    world.host.deleteImage(image);
    world.host.makeImage(image, gibibyte, { kind: "fileSystem", type: "ext4" });
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(world.host.image(image).formats).toBe(0);
  });

  const uses: readonly (readonly [string, Use])[] = [
    ["as a block device", { isBlock: true }],
    ["mounted", {}],
  ];
  test.each(uses)("what is used %s is its user's, whatever was begun before", async (_, use) => {
    await calls.NodeStageVolume(stageRequest("pvc-1", use));
    const note = world.host.notes.get("pvc-1");
    if (note !== undefined) world.host.notes.set("pvc-1", { ...note, formatting: "xfs" });
    await calls.NodeStageVolume(stageRequest("pvc-1", use));
    expect(world.host.notes.get("pvc-1")?.formatting).toBeNull();
  });

  test("nor is one that is to be read only", async () => {
    const request = stageRequest("pvc-1", { mode: "SINGLE_NODE_READER_ONLY" });
    expect(await failure(calls.NodeStageVolume(request))).toMatch(/^FAILED_PRECONDITION: .*for reading only/);
    expect(world.host.image(image).formats).toBe(0);
  });
});

describe("a block volume", () => {
  const use = { isBlock: true };

  test("comes to its pod as a device, untouched, and goes without a trace", async () => {
    world.host.image(image).content = { kind: "other", what: "somebody's data" };
    for (const _ of ["once", "and once more"]) {
      await calls.NodeStageVolume(stageRequest("pvc-1", use));
      await calls.NodePublishVolume(publishRequest("pvc-1", use));
    }
    expect(mounts()).toEqual([[targetOf("pvc-1"), "block", false]]);
    for (const _ of ["once", "and once more"]) {
      await calls.NodeUnpublishVolume(unpublishRequest("pvc-1"));
      await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    }
    expect(traces()).toEqual(clean);
    expect(world.host.image(image)).toMatchObject({ content: { kind: "other" }, formats: 0 });
  });

  test("that is only to be read is attached so", async () => {
    const reader: Use = { ...use, mode: "SINGLE_NODE_READER_ONLY" };
    await calls.NodeStageVolume(stageRequest("pvc-1", reader));
    await calls.NodePublishVolume(publishRequest("pvc-1", reader));
    expect(world.host.summary().devices).toMatchObject([{ isReadOnly: true }]);
    expect(mounts()).toEqual([[targetOf("pvc-1"), "block", true]]);
  });

  test("grows with its image", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1", use));
    await calls.NodePublishVolume(publishRequest("pvc-1", use));
    await world.growVolume("pvc-1", 2 * gibibyte);
    expect(await calls.NodeExpandVolume(expandRequest("pvc-1", 2 * gibibyte, use))).toEqual({
      capacityBytes: 2 * gibibyte,
    });
    const unsaid = { ...expandRequest("pvc-1", 0), volumeCapability: null, stagingTargetPath: "" };
    expect(await calls.NodeExpandVolume(unsaid)).toEqual({ capacityBytes: 2 * gibibyte });
  });

  test("tells how large it is", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1", use));
    await calls.NodePublishVolume(publishRequest("pvc-1", use));
    const request = { volumeId: "pvc-1", volumePath: targetOf("pvc-1") };
    expect(await calls.NodeGetVolumeStats(request)).toEqual({ usage: [{ unit: "BYTES", total: gibibyte }] });
  });

  test("is not what a file system is staged as", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(await failure(calls.NodeStageVolume(stageRequest("pvc-1", use)))).toMatch(
      /^ALREADY_EXISTS: .*as ext4, for writing; end the pods that use it first$/,
    );
  });
});

describe("publishing", () => {
  beforeEach(async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
  });

  test("may be for several pods, each for itself", async () => {
    await calls.NodePublishVolume(publishRequest("pvc-1", { pod: "a" }));
    await calls.NodePublishVolume(publishRequest("pvc-1", { pod: "b", isReadOnly: true }));
    expect(mounts().slice(1)).toEqual([
      [targetOf("pvc-1", "a"), "ext4", false],
      [targetOf("pvc-1", "b"), "ext4", true],
    ]);
    await calls.NodeUnpublishVolume(unpublishRequest("pvc-1", "a"));
    expect(mounts().slice(1)).toEqual([[targetOf("pvc-1", "b"), "ext4", true]]);
  });

  test("is for one pod only when the access mode says so", async () => {
    const mode = "SINGLE_NODE_SINGLE_WRITER";
    await calls.NodePublishVolume(publishRequest("pvc-1", { mode, pod: "a" }));
    await calls.NodePublishVolume(publishRequest("pvc-1", { mode, pod: "a" }));
    const second = () => calls.NodePublishVolume(publishRequest("pvc-1", { mode, pod: "b" }));
    const told = await failure(second());
    expect(told).toMatch(/^FAILED_PRECONDITION: .*one place only; end that pod/);
    expect(told).toContain(targetOf("pvc-1", "a"));
    await calls.NodeUnpublishVolume(unpublishRequest("pvc-1", "a"));
    await second();
  });

  test("for one pod is not hindered by one that is not mounted any more", async () => {
    const mode = "SINGLE_NODE_SINGLE_WRITER";
    await calls.NodePublishVolume(publishRequest("pvc-1", { mode, pod: "a" }));
    await world.host.unmount(targetOf("pvc-1", "a"));
    await calls.NodePublishVolume(publishRequest("pvc-1", { mode, pod: "b" }));
    expect(world.host.notes.get("pvc-1")?.targets).toEqual([targetOf("pvc-1", "b")]);
  });

  test("in another way than before is told, and changes nothing", async () => {
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    const before = world.host.summary();
    const asked = publishRequest("pvc-1", { isReadOnly: true });
    expect(await failure(calls.NodePublishVolume(asked))).toMatch(/^ALREADY_EXISTS: .*for writing; delete the pod/);
    expect(world.host.summary()).toEqual(before);
  });

  test("is refused where something else is mounted", async () => {
    await world.makeVolume("pvc-2");
    await calls.NodeStageVolume(stageRequest("pvc-2"));
    await calls.NodePublishVolume({ ...publishRequest("pvc-2"), targetPath: targetOf("pvc-1") });
    const told = await failure(calls.NodePublishVolume(publishRequest("pvc-1")));
    expect(told).toMatch(/^FAILED_PRECONDITION: .*which is not volume pvc-1/);
  });

  test("is refused while the staging path is not mounted: the pod would write to the node's disk", async () => {
    await world.host.unmount(stagingOf("pvc-1"));
    const told = await failure(calls.NodePublishVolume(publishRequest("pvc-1")));
    expect(told).toMatch(/^FAILED_PRECONDITION: .*not mounted at/);
    expect(mounts()).toEqual([]);
  });

  test("is refused while another volume is mounted at the staging path", async () => {
    await world.makeVolume("pvc-2");
    const request = { ...stageRequest("pvc-2"), stagingTargetPath: "/kubelet/other" };
    await calls.NodeStageVolume(request);
    const asked = { ...publishRequest("pvc-1"), stagingTargetPath: "/kubelet/other" };
    expect(await failure(calls.NodePublishVolume(asked))).toMatch(/^FAILED_PRECONDITION: .*is not volume pvc-1/);
  });

  test("of what does not answer any more is refused, and says what to do", async () => {
    world.host.broken.set(stagingOf("pvc-1"), "it answers EIO");
    const told = await failure(calls.NodePublishVolume(publishRequest("pvc-1")));
    expect(told).toMatch(/^INTERNAL: .*it answers EIO; end the pods/);
    await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    expect(traces()).toEqual(clean);
  });

  test("of a volume that is not staged is refused, and of one that does not exist", async () => {
    await world.makeVolume("pvc-2");
    const publish = (volume: string) => failure(calls.NodePublishVolume(publishRequest(volume)));
    expect(await publish("pvc-2")).toMatch(/^FAILED_PRECONDITION: .*not staged/);
    expect(await publish("pvc-3")).toMatch(/^NotFound: /);
    expect(await publish("PVC-3")).toMatch(/^NOT_FOUND: /);
  });

  test("that ends leaves what pods have put into the place, and says so", async () => {
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    world.host.places.set(targetOf("pvc-1"), "full");
    const told = await failure(calls.NodeUnpublishVolume(unpublishRequest("pvc-1")));
    expect(told).toMatch(/^INTERNAL: volume pvc-1 on node node-1$/);
    expect(world.host.places.get(targetOf("pvc-1"))).toBe("full");
  });
});

describe("the pod that a volume is published for", () => {
  const context = { "csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.name": "db-0" };
  const puts = () => world.agent.puts.map(([name, spec]) => [name, spec]);
  beforeEach(async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
  });

  test("is told to the agent, with the size that the volume has", async () => {
    await calls.NodePublishVolume(publishRequest("pvc-1", { context }));
    expect(puts()).toEqual([["pvc-1", { sizeBytes: gibibyte, affinity: "shop/db-0" }]]);
    expect(world.agent.puts[0]?.[2]).toEqual({ ifMatch: 1 });
  });

  test("is not told when nobody says who it is", async () => {
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    expect(puts()).toEqual([]);
  });

  test("is told as far as there is room for it", async () => {
    const name = "n".repeat(253);
    await calls.NodePublishVolume(
      publishRequest("pvc-1", { context: { ...context, "csi.storage.k8s.io/pod.name": name } }),
    );
    expect(puts()).toEqual([["pvc-1", { sizeBytes: gibibyte, affinity: `shop/${"n".repeat(248)}` }]]);
  });

  test("is a hint: an agent that is out of reach keeps no pod from starting, and is told of", async () => {
    world.agent.failure = new LongshoreError("Unreachable", "no agent answers");
    await calls.NodePublishVolume(publishRequest("pvc-1", { context }));
    expect(mounts()).toHaveLength(2);
    expect(world.lines).toContainEqual(expect.objectContaining({ msg: "affinity not set", affinity: "shop/db-0" }));
  });

  test("is a hint: an agent that does not answer is not waited for", async () => {
    world.agent.getVolume = () => new Promise(() => undefined);
    const published = calls.NodePublishVolume(publishRequest("pvc-1", { context }));
    await world.clock.advance(5_000);
    await published;
    expect(mounts()).toHaveLength(2);
  });
});

describe("staging", () => {
  test("in another way than before is told, and changes nothing", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "xfs" }));
    const before = world.host.summary();
    const others: readonly Use[] = [{ fsType: "ext4" }, { mode: "SINGLE_NODE_READER_ONLY" }, { isBlock: true }];
    for (const use of others) {
      expect(await failure(calls.NodeStageVolume(stageRequest("pvc-1", use)))).toMatch(/^ALREADY_EXISTS: /);
    }
    expect(world.host.summary()).toEqual(before);
  });

  test("is refused where something else is mounted, before anything is done", async () => {
    await world.makeVolume("pvc-2");
    const { path } = await world.agent.getVolume("pvc-2");
    world.host.mountByHand(path, stagingOf("pvc-1"));
    const told = await failure(calls.NodeStageVolume(stageRequest("pvc-1")));
    expect(told).toMatch(/^FAILED_PRECONDITION: .*which is not volume pvc-1/);
    expect(traces()).toMatchObject({ devices: [{ image: path }] });
    expect(world.host.notes.size).toBe(0);
  });

  test("is refused while an image that the volume had before is mounted", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    world.host.deleteImage(image);
    world.host.makeImage(image, gibibyte);
    const told = await failure(calls.NodeStageVolume(stageRequest("pvc-1")));
    expect(told).toMatch(/^FAILED_PRECONDITION: .*not volume pvc-1/);
    expect(world.host.image(image).formats).toBe(0);
  });

  test("of a volume that is not on this node is refused", async () => {
    expect(await failure(calls.NodeStageVolume(stageRequest("pvc-9")))).toMatch(/^NotFound: /);
  });

  test("of a volume whose image is missing is refused, and leaves nothing", async () => {
    world.host.deleteImage(image);
    expect(await failure(calls.NodeStageVolume(stageRequest("pvc-1")))).toMatch(/^VolumeGone: /);
    expect(traces()).toEqual(clean);
  });

  test("goes on while the caller's earlier try is at work: the second one is told to come back", async () => {
    const answered = Promise.withResolvers<void>();
    const getVolume = world.agent.getVolume.bind(world.agent);
    world.agent.getVolume = async (name) => {
      await answered.promise;
      return getVolume(name);
    };
    const first = calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(await failure(calls.NodeStageVolume(stageRequest("pvc-1")))).toMatch(/^ABORTED: .*volume pvc-1/);
    expect(await failure(calls.NodeUnstageVolume(unstageRequest("pvc-1")))).toMatch(/^ABORTED: /);
    answered.resolve();
    await first;
    await calls.NodeStageVolume(stageRequest("pvc-1"));
  });
});

/** A kubelet that was told so forgets about the volume, and never unstages it. */
describe("a staging that fails for good", () => {
  const failures: readonly (readonly [string, Use, () => void])[] = [
    [
      "because of what is on the volume",
      { fsType: "ext4" },
      () => {
        world.host.image(image).content = { kind: "fileSystem", type: "xfs" };
      },
    ],
    [
      "because it cannot be mounted",
      {},
      () => {
        world.host.image(image).content = { kind: "fileSystem", type: "ext4" };
      },
    ],
    [
      "once it is mounted",
      { fsType: "xfs" },
      () => {
        world.host.grow = () => Promise.reject(new HostError("xfs_growfs: exit status 1"));
      },
    ],
  ];
  test.each(failures)("%s leaves nothing", async (_, use, arrange) => {
    arrange();
    expect(await failure(calls.NodeStageVolume(stageRequest("pvc-1", use)))).toMatch(/^(FAILED_PRECONDITION|INTERNAL)/);
    expect(traces()).toEqual(clean);
  });

  test("takes nothing from pods that use the volume already", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    await world.host.unmount(stagingOf("pvc-1"));
    const before = traces();
    world.host.grow = () => Promise.reject(new HostError("resize2fs: exit status 1"));
    expect(await failure(calls.NodeStageVolume(stageRequest("pvc-1")))).toMatch(/^INTERNAL/);
    expect(traces()).toEqual(before);
  });

  test("and cannot be taken back is not told so for good: the kubelet unstages", async () => {
    world.host.grow = () => Promise.reject(new HostError("xfs_growfs: exit status 1"));
    world.host.unmount = () => Promise.reject(new LongshoreError("VolumeBusy", "it is being snapshotted"));
    const told = failure(calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "xfs" })));
    expect(await told).toMatch(/^ABORTED: .*it is being snapshotted/);
  });
});

test("a block device is not detached while it is shown to a pod: its number would become another image's there", async () => {
  const use = { isBlock: true };
  await calls.NodeStageVolume(stageRequest("pvc-1", use));
  await calls.NodePublishVolume(publishRequest("pvc-1", use));
  const before = traces();
  const told = await failure(calls.NodeUnstageVolume(unstageRequest("pvc-1")));
  expect(told).toBe(
    `FAILED_PRECONDITION: volume pvc-1 is still published at ${targetOf("pvc-1")}, as a block device; unpublish it there first`,
  );
  expect(traces()).toEqual(before);
  await calls.NodeUnpublishVolume(unpublishRequest("pvc-1"));
  await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
  expect(traces()).toEqual(clean);
});

describe("expanding", () => {
  const expand = (bytes: number) => calls.NodeExpandVolume(expandRequest("pvc-1", bytes));

  test.each(["ext4", "xfs", "btrfs"])("a mounted %s has its file system take up the new size", async (fsType) => {
    await calls.NodeStageVolume(stageRequest("pvc-1", { fsType }));
    await calls.NodePublishVolume(publishRequest("pvc-1", { fsType }));
    await world.growVolume("pvc-1", 2 * gibibyte);
    for (const _ of [1, 2]) expect(await expand(2 * gibibyte)).toEqual({ capacityBytes: 2 * gibibyte });
    expect(world.host.image(image).fileSystemBytes).toBe(2 * gibibyte);
  });

  test("needs no more than the path where it is published", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    await world.growVolume("pvc-1", 2 * gibibyte);
    const unsaid = { stagingTargetPath: "", volumeCapability: null, capacityRange: null };
    const request = { ...expandRequest("pvc-1", 0), ...unsaid };
    expect(await calls.NodeExpandVolume(request)).toEqual({ capacityBytes: 2 * gibibyte });
    expect(world.host.image(image).fileSystemBytes).toBe(2 * gibibyte);
  });

  test("an ext4 that cannot grow while it is mounted is no success, and grows when it is staged again", async () => {
    world.host.growsMountedExt4 = false;
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    await world.growVolume("pvc-1", 2 * gibibyte);
    expect(await failure(expand(2 * gibibyte))).toMatch(/^FAILED_PRECONDITION: .*grows when no pod uses the volume/);
    // A kubelet that was restarted stages what it finds mounted: pods go on, and nothing is touched from below them.
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(world.host.image(image).fileSystemBytes).toBe(gibibyte);
    expect(world.lines).toContainEqual(expect.objectContaining({ msg: "file system not grown", volume: "pvc-1" }));
    await calls.NodeUnpublishVolume(unpublishRequest("pvc-1"));
    await calls.NodeUnstageVolume(unstageRequest("pvc-1"));
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    expect(await expand(2 * gibibyte)).toEqual({ capacityBytes: 2 * gibibyte });
    expect(world.host.image(image).fileSystemBytes).toBe(2 * gibibyte);
  });

  test("what is mounted for reading only does not grow, and says so", async () => {
    world.host.image(image).content = { kind: "fileSystem", type: "ext4" };
    world.host.image(image).fileSystemBytes = gibibyte;
    await calls.NodeStageVolume(stageRequest("pvc-1", { mode: "SINGLE_NODE_READER_ONLY" }));
    expect(await failure(expand(0))).toMatch(/^FAILED_PRECONDITION: .*for reading only/);
  });

  test("to more than the volume has is refused", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    expect(await failure(expand(2 * gibibyte))).toMatch(/^OUT_OF_RANGE: /);
  });

  test("what is not staged here, or nowhere mounted, is not found", async () => {
    expect(await failure(expand(0))).toMatch(/^NOT_FOUND: .*not staged/);
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await world.host.unmount(stagingOf("pvc-1"));
    expect(await failure(expand(0))).toMatch(/^NOT_FOUND: .*not mounted/);
  });
});

describe("the usage of a volume", () => {
  const stats = (volumePath: string) => calls.NodeGetVolumeStats({ volumeId: "pvc-1", volumePath });

  test("is told in bytes and inodes", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    expect(await stats(targetOf("pvc-1"))).toEqual({
      usage: [
        { unit: "BYTES", total: gibibyte, used: 4096, available: gibibyte - 4096 },
        { unit: "INODES", total: 1000, used: 3, available: 997 },
      ],
    });
  });

  test("is told in bytes alone where inodes have no limit", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1", { fsType: "btrfs" }));
    expect((await stats(stagingOf("pvc-1"))).usage.map(({ unit }) => unit)).toEqual(["BYTES"]);
  });

  test("is not found where it is not mounted", async () => {
    expect(await failure(stats(targetOf("pvc-1")))).toMatch(/^NOT_FOUND: .*not staged/);
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    await calls.NodePublishVolume(publishRequest("pvc-1"));
    await world.makeVolume("pvc-2");
    await calls.NodeStageVolume(stageRequest("pvc-2"));
    for (const path of ["some/path", "/elsewhere", targetOf("pvc-1", "pod-2"), stagingOf("pvc-2")]) {
      expect(await failure(stats(path))).toMatch(/^NOT_FOUND: .*not published at/);
    }
    expect(await failure(calls.NodeGetVolumeStats({ volumeId: "PVC", volumePath: "some/path" }))).toMatch(/^NOT_FOUND/);
  });

  test("of what does not answer any more is a failure", async () => {
    await calls.NodeStageVolume(stageRequest("pvc-1"));
    world.host.broken.set(stagingOf("pvc-1"), "it answers EIO");
    expect(await failure(stats(stagingOf("pvc-1")))).toMatch(/^INTERNAL: .*EIO/);
  });
});

describe("what is missing in a request is told by its field, and changes nothing:", () => {
  const asked: readonly (readonly [string, string, () => Promise<unknown>])[] = [
    ["volume_id", "INVALID_ARGUMENT", () => calls.NodeStageVolume({ ...stageRequest("pvc-1"), volumeId: "" })],
    [
      "staging_target_path",
      "INVALID_ARGUMENT",
      () => calls.NodeStageVolume({ ...stageRequest("pvc-1"), stagingTargetPath: "" }),
    ],
    [
      "volume_capability",
      "INVALID_ARGUMENT",
      () => calls.NodeStageVolume({ ...stageRequest("pvc-1"), volumeCapability: null }),
    ],
    [
      "staging_target_path",
      "INVALID_ARGUMENT",
      () => calls.NodeStageVolume({ ...stageRequest("pvc-1"), stagingTargetPath: "/etc" }),
    ],
    ["volume_id", "INVALID_ARGUMENT", () => calls.NodeUnstageVolume({ ...unstageRequest("pvc-1"), volumeId: "" })],
    [
      "staging_target_path",
      "INVALID_ARGUMENT",
      () => calls.NodeUnstageVolume({ ...unstageRequest("pvc-1"), stagingTargetPath: "" }),
    ],
    ["volume_id", "INVALID_ARGUMENT", () => calls.NodePublishVolume({ ...publishRequest("pvc-1"), volumeId: "" })],
    ["target_path", "INVALID_ARGUMENT", () => calls.NodePublishVolume({ ...publishRequest("pvc-1"), targetPath: "" })],
    [
      "volume_capability",
      "INVALID_ARGUMENT",
      () => calls.NodePublishVolume({ ...publishRequest("pvc-1"), volumeCapability: null }),
    ],
    [
      "staging_target_path",
      "FAILED_PRECONDITION",
      () => calls.NodePublishVolume({ ...publishRequest("pvc-1"), stagingTargetPath: "" }),
    ],
    ["volume_id", "INVALID_ARGUMENT", () => calls.NodeUnpublishVolume({ ...unpublishRequest("pvc-1"), volumeId: "" })],
    [
      "target_path",
      "INVALID_ARGUMENT",
      () => calls.NodeUnpublishVolume({ ...unpublishRequest("pvc-1"), targetPath: "" }),
    ],
    ["volume_id", "INVALID_ARGUMENT", () => calls.NodeGetVolumeStats({ volumeId: "", volumePath: "some/path" })],
    ["volume_path", "INVALID_ARGUMENT", () => calls.NodeGetVolumeStats({ volumeId: "pvc-1", volumePath: "" })],
    ["volume_id", "INVALID_ARGUMENT", () => calls.NodeExpandVolume({ ...expandRequest("pvc-1", 0), volumeId: "" })],
    ["volume_path", "INVALID_ARGUMENT", () => calls.NodeExpandVolume({ ...expandRequest("pvc-1", 0), volumePath: "" })],
  ];
  test.each(asked)("%s, %s", async (field, code, call) => {
    expect(await failure(call())).toMatch(new RegExp(`^${code}: ${field} `));
    expect(traces()).toEqual(clean);
    expect(world.host.places.size).toBe(0);
  });

  test("a name that no volume has is unstaged and unpublished without ado", async () => {
    await calls.NodeUnpublishVolume(unpublishRequest("PVC_1"));
    await calls.NodeUnstageVolume(unstageRequest("PVC_1"));
    expect(await failure(calls.NodeStageVolume(stageRequest("PVC_1")))).toMatch(/^NOT_FOUND: /);
  });

  test("a capability that no volume has is refused", async () => {
    const volumeCapability = capabilityOf({ mode: "MULTI_NODE_MULTI_WRITER" });
    const request = { ...stageRequest("pvc-1"), volumeCapability };
    expect(await failure(calls.NodeStageVolume(request))).toMatch(/^FAILED_PRECONDITION: /);
  });
});
