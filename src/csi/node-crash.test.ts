// The node's process is killed, or an answer gets lost, before and after each thing it does to its node. Whatever the kubelet does then, it
// comes to the same end as if nothing had happened.
import { describe, expect, test } from "@jest/globals";
import { type CrashMode, CrashPoint } from "../../test/fakes/crash-point.ts";
import {
  expandRequest,
  type NodeService,
  NodeWorld,
  publishRequest,
  stageRequest,
  type Use,
  unpublishRequest,
  unstageRequest,
} from "../../test/fakes/node-world.ts";

const gibibyte = 2 ** 30;
const modes: readonly CrashMode[] = ["before", "after", "lostReply"];
/** More effects than any of the stories has. */
const effectsMax = 60;

type Step = (calls: NodeService["calls"], world: NodeWorld) => Promise<unknown>;

const stage =
  (use: Use): Step =>
  (calls) =>
    calls.NodeStageVolume(stageRequest("pvc-1", use));
const publish =
  (use: Use): Step =>
  (calls) =>
    calls.NodePublishVolume(publishRequest("pvc-1", use));
const unpublish: Step = (calls) => calls.NodeUnpublishVolume(unpublishRequest("pvc-1"));
const unstage: Step = (calls) => calls.NodeUnstageVolume(unstageRequest("pvc-1"));
const growImage: Step = (_, world) => world.growVolume("pvc-1", 2 * gibibyte);
const expand: Step = (calls) => calls.NodeExpandVolume(expandRequest("pvc-1", 2 * gibibyte));

/** Repeats each step until it succeeds, as a kubelet does; a process that was killed is started again. */
async function live(world: NodeWorld, steps: readonly Step[], crash: CrashPoint): Promise<void> {
  let calls = world.start(crash).calls;
  for (const step of steps) {
    for (let tries = 1; ; tries++) {
      try {
        await step(calls, world);
        break;
      } catch (error) {
        if (tries > 3) throw error;
        if (crash.isDead) calls = world.start().calls;
      }
    }
  }
}

interface Story {
  readonly use: Use;
  readonly steps: readonly Step[];
  readonly growsMountedExt4?: boolean;
}

async function worldOf({ growsMountedExt4 = true }: Story): Promise<{ world: NodeWorld; image: string }> {
  const world = new NodeWorld({ growsMountedExt4 });
  return { world, image: await world.makeVolume("pvc-1") };
}

const life = (use: Use) => [stage(use), publish(use)];
const death = [unpublish, unstage];

const stories: readonly (readonly [string, Story])[] = [
  ["an ext4 that comes", { use: {}, steps: life({}) }],
  ["an XFS that comes and goes", { use: { fsType: "xfs" }, steps: [...life({ fsType: "xfs" }), ...death] }],
  ["a block volume that comes and goes", { use: { isBlock: true }, steps: [...life({ isBlock: true }), ...death] }],
  ["a volume that goes without having been published", { use: {}, steps: [stage({}), unstage] }],
  ["one that grows while it is mounted", { use: {}, steps: [...life({}), growImage, expand] }],
  [
    "one that grows when it comes again",
    { use: {}, steps: [...life({}), growImage, ...death, ...life({}), expand], growsMountedExt4: false },
  ],
];

describe.each(stories)("%s", (_, story) => {
  test.each(modes)("comes to the same end, whichever effect the end of the process is met at: %s", async (mode) => {
    const reference = await worldOf(story);
    await live(reference.world, story.steps, new CrashPoint());
    const expected = reference.world.host.summary();
    for (let effect = 1; effect <= effectsMax; effect++) {
      const { world, image } = await worldOf(story);
      const crash = new CrashPoint({ effect, mode });
      await live(world, story.steps, crash);
      expect({ effect: crash.effects[effect - 1], end: world.host.summary() }).toEqual({
        effect: crash.effects[effect - 1],
        end: expected,
      });
      // What was interrupted may be made once more; what was mounted never is.
      expect(world.host.image(image).formats).toBeLessThanOrEqual(story.use.isBlock ? 0 : 2);
      if (crash.wasReached) continue;
      // Every effect has had its turn.
      return expect(effect).toBeGreaterThan(4);
    }
    throw new Error(`the story has more than ${effectsMax} effects`);
  });
});

/** What a kubelet does for a pod that is deleted before its volume has come. */
test.each(modes)("a volume that is given up on its way leaves nothing: %s", async (mode) => {
  for (let effect = 1; effect <= effectsMax; effect++) {
    const story: Story = { use: {}, steps: [] };
    const { world } = await worldOf(story);
    const crash = new CrashPoint({ effect, mode });
    const { calls } = world.start(crash);
    await stage({ fsType: "xfs" })(calls, world)
      .then(() => publish({ fsType: "xfs" })(calls, world))
      .catch(() => undefined);
    await live(world, death, new CrashPoint());
    const { devices, mounts } = world.host.summary();
    expect({ effect, devices, mounts }).toEqual({ effect, devices: [], mounts: [] });
    // A half made file system is still known for one when the next pod comes, of which nothing is left either.
    await live(world, [...life({ fsType: "xfs" }), ...death], new CrashPoint());
    expect({ effect, notes: world.host.summary().notes }).toEqual({ effect, notes: {} });
    if (!crash.wasReached) return expect(effect).toBeGreaterThan(4);
  }
  throw new Error(`there are more than ${effectsMax} effects`);
});

test.each(modes)("what was interrupted is formatted again, and data that came after it never is: %s", async (mode) => {
  for (let effect = 1; effect <= effectsMax; effect++) {
    const { world, image } = await worldOf({ use: {}, steps: [] });
    const crash = new CrashPoint({ effect, mode });
    await live(world, [stage({})], crash);
    const { formats } = world.host.image(image);
    // From here on it has been mounted, and a pod may have written to it.
    await live(world, [publish({}), ...death, ...life({}), ...death, stage({})], new CrashPoint());
    expect(world.host.image(image).formats).toBe(formats);
    if (!crash.wasReached) return expect(effect).toBeGreaterThan(4);
  }
  throw new Error(`there are more than ${effectsMax} effects`);
});

/** The machine itself goes down at each effect, and comes up again. */
test("a machine that goes down on the way finds its volume as it was, or makes it anew", async () => {
  for (let effect = 1; effect <= effectsMax; effect++) {
    const { world, image } = await worldOf({ use: {}, steps: [] });
    const crash = new CrashPoint({ effect, mode: "after" });
    const { calls } = world.start(crash);
    await stage({ fsType: "xfs" })(calls, world).catch(() => undefined);
    world.host.reboot();
    await live(world, life({ fsType: "xfs" }), new CrashPoint());
    expect(world.host.image(image).content).toEqual({ kind: "fileSystem", type: "xfs" });
    expect(world.host.summary().mounts).toHaveLength(2);
    if (!crash.wasReached) return expect(effect).toBeGreaterThan(4);
  }
  throw new Error(`there are more than ${effectsMax} effects`);
});
