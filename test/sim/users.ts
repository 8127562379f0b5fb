// What people and applications do: guests that write, users that clone at the target, hold snapshots, and change their minds.
import { codeOf } from "../../src/domain/errors.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import { Dead, type Host } from "./host.ts";
import { type Image, writeLive } from "./memory-disk.ts";
import type { Caller } from "./sim-network.ts";
import type { Kubernetes, WantedGroup, WantedVolume } from "./sim-operator.ts";
import type { Owner } from "./timeline.ts";
import type { World } from "./world.ts";

const blockBytes = 4096;
const sizeBlocksMax = 64;

export class Users implements Owner {
  readonly isDead = false;
  readonly suspendedUntilMs = 0;
  /** They stop asking for new things, and undo what would stay. */
  isLeaving = false;
  private readonly world: World;
  private readonly caller: Caller;
  private nextTag = 1;
  private nextClone = 1;

  constructor(world: World) {
    this.world = world;
    this.caller = { party: { name: "users" }, owner: this, effect: () => undefined };
  }

  /** Writes into one volume, for as long as there is one. */
  async guest(volume: WantedVolume): Promise<void> {
    const { world } = this;
    for (;;) {
      await world.timeline.pause(world.chance.between(200, 1_500), this);
      const image = liveImage(volume);
      if (image !== undefined && volume.host.isUp && !isFrozen(volume, world.timeline.nowMs)) this.write(image, volume);
    }
  }

  /**
   * Writes into the volumes of a group, one after the other: each write follows from the one before it, so a volume that is
   * frozen holds up all of them. Block 0 of each says which write came last.
   */
  async groupGuest({ name, volumes }: WantedGroup): Promise<void> {
    const { world } = this;
    const { chance, timeline, invariants } = world;
    for (;;) {
      await timeline.pause(chance.between(20, 400), this);
      const index = chance.whole(0, volumes.length - 1);
      const volume = volumes[index] as WantedVolume;
      while (!volume.host.isUp || isFrozen(volume, timeline.nowMs)) await timeline.pause(chance.between(5, 50), this);
      const image = liveImage(volume);
      if (image === undefined) continue;
      if (chance.is(0.3)) this.write(image, volume);
      writeLive(image, 0, this.nextTag);
      invariants.wrote(name, volume.name, this.nextTag++);
    }
  }

  /** Clones what arrives at a node, a while long each. Some clones replace the original: they are brought back to where it is. */
  async cloner(host: Host, kubernetes: Kubernetes): Promise<void> {
    const { world } = this;
    while (!this.isLeaving) {
      await world.timeline.pause(world.chance.between(1_000, 6_000), this);
      if (!this.isLeaving) await this.tolerant(() => this.clone(host, kubernetes));
    }
  }

  /** Holds a snapshot for a while. */
  async holder(volume: WantedVolume): Promise<void> {
    const { world } = this;
    const agent = this.agent(volume.host);
    while (!this.isLeaving) {
      await world.timeline.pause(world.chance.between(300, 6_000), this);
      const held = await this.tolerant(async () => {
        const { snapshots } = await agent.getVolume(volume.name);
        if (snapshots.length === 0) return undefined;
        const { name } = world.chance.pick(snapshots);
        await agent.putHold(volume.name, name, "user");
        return name;
      });
      await world.timeline.pause(world.chance.between(500, 6_000), this);
      if (held !== undefined)
        await this.until(() => agent.removeHold(volume.name, held, { reason: "user", owner: "user" }));
    }
    // One whose answer was lost, or that comes in late, may hold something nobody knows of.
    for (;;) {
      const view = await this.until(() => agent.getVolume(volume.name));
      for (const { name, holds } of view?.snapshots ?? []) {
        for (const { reason, owner } of holds) {
          if (reason === "user") await this.until(() => agent.removeHold(volume.name, name, { reason, owner }));
        }
      }
      await world.timeline.pause(3_000, this);
    }
  }

  private write(image: Image, volume: WantedVolume): void {
    const { chance } = this.world;
    const count = image.blocks.length;
    if (chance.is(0.08) && count < sizeBlocksMax && !this.isLeaving) {
      volume.sizeBytes = Math.max(volume.sizeBytes, image.sizeBytes) + chance.whole(1, 8) * blockBytes;
    }
    const isNew = image.blocks.every((block) => block === null);
    for (let left = isNew ? count : chance.whole(1, 6); left > 0; left--) {
      // Block 0 is the group's.
      const start = chance.whole(1, count - 1);
      const isDiscard = chance.is(0.25);
      for (let index = start; index < Math.min(count, start + chance.whole(1, 4)); index++) {
        writeLive(image, index, isDiscard ? 0 : this.nextTag++);
      }
    }
  }

  private async clone(host: Host, kubernetes: Kubernetes): Promise<void> {
    const { world } = this;
    const agent = this.agent(host);
    const { items } = await agent.listMigratedVolumes();
    if (items.length === 0) return;
    const source = world.chance.pick(items);
    const pinned = source.points.length > 0 && world.chance.is(0.4);
    const point = pinned ? world.chance.pick(source.points).pointId : "latest";
    const name = `clone-${this.nextClone++}`;
    let isReady = false;
    let sizeBytes = 0;
    for (let asked = world.chance.whole(1, 12); asked > 0 && !isReady; asked--) {
      const view = await this.tolerant(() => agent.putClone(name, { migratedVolume: source.name, point }));
      isReady = view?.state === "Ready";
      sizeBytes = view?.sizeBytes ?? 0;
      await world.timeline.pause(world.chance.between(100, 1_500), this);
    }
    const back = kubernetes.locations.find(({ uid }) => uid === source.sourceClusterUid);
    if (isReady && back !== undefined && !this.isLeaving && world.chance.is(0.3)) {
      const failedOver = { name, host, sizeBytes, locations: [back.name] };
      kubernetes.volumes.push(failedOver);
      void this.guest(failedOver);
      return;
    }
    if (isReady && world.chance.is(0.6)) await this.tolerant(() => agent.removeClone(name));
    if (!isReady && world.chance.is(0.3)) await this.tolerant(() => agent.removeClone(name));
  }

  private agent(host: Host): AgentApi {
    return this.world.network.agent(this.caller, host);
  }

  private async tolerant<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Dead || codeOf(error) === undefined) throw error;
      return undefined;
    }
  }

  /** Tries until it is done; what does not exist is done. */
  private async until<T>(work: () => Promise<T>): Promise<T | undefined> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (codeOf(error) === undefined) throw error;
        if (codeOf(error) === "NotFound") return undefined;
        await this.world.timeline.pause(300, this);
      }
    }
  }
}

/** The live image of a wanted volume, where its agent has made one. */
export function liveImage(volume: WantedVolume): Image | undefined {
  const uid = uidOf(volume);
  return uid === undefined ? undefined : volume.host.disk.image({ volume: uid, point: undefined });
}

function isFrozen(volume: WantedVolume, nowMs: number): boolean {
  return volume.host.disk.isFrozen(uidOf(volume) ?? "", nowMs);
}

function uidOf({ name, host }: WantedVolume): string | undefined {
  const sql = "SELECT uid FROM volumes WHERE name = ? AND state = 'ready'";
  return host.journal.read.get<{ uid: string }>(sql, name)?.uid;
}
