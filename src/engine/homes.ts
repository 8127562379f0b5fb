// Which agent of this cluster is at home to a foreign volume's copy, and which decides for a group. Asked by the source before
// it claims; what is new is placed by one agent only, and only when all have said that they do not have it.
import { LongshoreError } from "../domain/errors.ts";
import { chooseHome, findHome, type Room } from "../domain/homes.ts";
import type { Copies, CopiesRequest, Copy, PlaceRequest } from "../wire/member.ts";
import type { Homes as Located, LocateRequest } from "../wire/peer.ts";
import type { Lineage } from "../wire/schemas.ts";
import { affinitiesOf } from "./affinity.ts";
import type { Core } from "./core.ts";
import { originalPoint } from "./lineage.ts";
import type { MigratedVolumes } from "./migrated.ts";
import { pointsOf } from "./points.ts";

interface PlacementRow {
  readonly clusterUid: string;
  readonly volumeUid: string;
  readonly agentId: string;
  readonly sizeBytes: number;
  readonly placedAt: number;
}

interface Survey {
  readonly copies: readonly Copy[];
  readonly rooms: readonly Room[];
  /** Homes of copies with an affinity that was asked for. */
  readonly near: readonly string[];
  /** Members that count and did not answer. */
  readonly silent: readonly string[];
}

const placeLockKey = "place";
/** Of one request to another agent. */
const volumesAskedMax = 256;
/** What a message may say. */
const bytesMax = 2 ** 52;

function askFor(clusterUid: string, request: LocateRequest): CopiesRequest {
  const { volumes } = request;
  const originals = volumes.flatMap(({ lineage }) => lineage ?? []);
  const affinities = affinitiesOf(request);
  return {
    clusterUid,
    volumes: volumes.map(({ volume }) => volume),
    ...(originals.length > 0 && { originals }),
    ...(affinities.length > 0 && { affinities }),
  };
}

export class Homes {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;

  constructor(core: Core, parts: { migrated: MigratedVolumes }) {
    this.core = core;
    this.migrated = parts.migrated;
  }

  /** See PeerGroupApi.locate. */
  async locate(clusterUid: string, request: LocateRequest): Promise<Located> {
    this.checkEntitled();
    const asked = askFor(clusterUid, request);
    const survey = await this.survey(asked);
    const isNew = asked.volumes.some((volume) => this.homeOf(volume, survey) === undefined);
    const { copies } = isNew ? await this.placer().place({ clusterUid, ...request }) : survey;
    const homes = asked.volumes.map((volume) => ({ volume, agentId: this.required(volume, { ...survey, copies }) }));
    return {
      clusterUid: this.core.cluster.uid,
      homes,
      groupHome: request.group === undefined ? null : this.groupHome(request.group, copies, homes),
      members: this.core.members.all(),
    };
  }

  /** See MemberApi.copies. */
  async copies({ clusterUid, volumes, originals = [], affinities = [] }: CopiesRequest): Promise<Copies> {
    const { freeBytes } = await this.core.storage.space();
    const copies = volumes.flatMap((volume) => this.made(clusterUid, volume) ?? this.placed(clusterUid, volume) ?? []);
    const isHere = (original: Lineage) => originalPoint(this.core, original)?.state === "sealed";
    const near = [...new Set(affinities.flatMap((affinity) => this.near(clusterUid, affinity)))];
    const promisedBytes = Math.min(this.migrated.bytesExpected(), bytesMax);
    const sources = originals.filter(isHere).map(({ pointId }) => pointId);
    return { copies, freeBytes, promisedBytes, originals: sources, near };
  }

  /** See MemberApi.place. */
  place(request: PlaceRequest): Promise<Copies> {
    const { clusterUid, volumes } = request;
    return this.core.lock.run(placeLockKey, async () => {
      this.checkEntitled();
      const asked = askFor(clusterUid, request);
      const pending = this.pending(asked);
      const survey = await this.survey({ ...asked, volumes: [...asked.volumes, ...pending] });
      this.forgetMade(clusterUid, survey.copies);
      const copies = survey.copies.filter(({ volume }) => asked.volumes.includes(volume));
      for (const one of volumes) {
        if (this.homeOf(one.volume, { ...survey, copies }) !== undefined) continue;
        copies.push(this.choose(clusterUid, one, { ...survey, copies, rooms: this.roomLeft(survey.rooms) }));
      }
      const { freeBytes } = await this.core.storage.space();
      return { copies, freeBytes };
    });
  }

  /** Whether any agent has a copy of one of these, or may have one and does not answer. */
  async areAnywhere(clusterUid: string, volumes: readonly string[]): Promise<boolean> {
    for (let first = 0; first < volumes.length; first += volumesAskedMax) {
      const some = volumes.slice(first, first + volumesAskedMax);
      const { copies, silent } = await this.survey({ clusterUid, volumes: some });
      if (silent.length > 0 || copies.some(({ isMade }) => isMade)) return true;
    }
    return false;
  }

  /** Now and then: what was placed, and nobody has made for long, is not placed any more. */
  tidy(): void {
    const { journal } = this.core;
    const old = this.placements().filter((row) => this.isVoid(row));
    if (old.length === 0) return;
    journal.transaction(() => {
      for (const { clusterUid, volumeUid } of old) this.forgetPlacement(clusterUid, volumeUid);
    });
  }

  /** Whoever does not know the cluster would take for new what others have. */
  private checkEntitled(): void {
    this.core.members.checkPresent();
    this.core.members.checkAcquainted();
  }

  private made(clusterUid: string, volume: string): Copy | undefined {
    const row = this.migrated.bySource(clusterUid, volume);
    if (row === undefined || row.deleting === 1) return undefined;
    const points = pointsOf(this.core.journal, row.uid).filter(({ state }) => state === "sealed").length;
    const group = row.groupName !== null && row.groupHome !== null && { name: row.groupName, home: row.groupHome };
    const { agentId } = this.core;
    return { volume, agentId, isMade: true, points, epoch: row.epoch, ...(group && { group }) };
  }

  /** Homes of copies with this affinity, as far as they are here or were placed from here. */
  private near(clusterUid: string, affinity: string): string[] {
    const { journal, agentId, members } = this.core;
    const made = journal.get(
      "SELECT 1 AS one FROM migrated WHERE clusterUid = ? AND affinity = ? AND deleting = 0",
      clusterUid,
      affinity,
    );
    const placed = journal.all<{ agentId: string }>(
      "SELECT DISTINCT agentId FROM placements WHERE clusterUid = ? AND affinity = ?",
      clusterUid,
      affinity,
    );
    const others = placed.map((row) => row.agentId).filter((id) => !members.isForgotten(id));
    return made === undefined ? others : [agentId, ...others];
  }

  private placed(clusterUid: string, volume: string): Copy | undefined {
    const row = this.core.journal.get<PlacementRow>(
      "SELECT * FROM placements WHERE clusterUid = ? AND volumeUid = ?",
      clusterUid,
      volume,
    );
    if (row === undefined || this.isVoid(row) || this.core.members.isForgotten(row.agentId)) return undefined;
    return { volume, agentId: row.agentId, isMade: false, points: 0, epoch: 0 };
  }

  // ---- placements --------------------------------------------------------------------------------------------------

  private placements(): PlacementRow[] {
    return this.core.journal.all<PlacementRow>("SELECT * FROM placements ORDER BY placedAt DESC");
  }

  /** Whoever was told of it so long ago does not claim there any more; by either sign, for the wall clock may be set back. */
  private isVoid({ placedAt }: PlacementRow): boolean {
    const { clock, limits } = this.core;
    return Math.abs(clock.nowMs() - placedAt) > limits.stagingAgeMs;
  }

  /** Other volumes of that cluster that were placed and perhaps are made by now: as many as can be asked for along with these. */
  private pending({ clusterUid, volumes }: CopiesRequest): string[] {
    const others = this.placements().filter(
      (row) => row.clusterUid === clusterUid && !volumes.includes(row.volumeUid) && !this.isVoid(row),
    );
    return others.slice(0, volumesAskedMax - volumes.length).map(({ volumeUid }) => volumeUid);
  }

  /** Of a copy that was made its home tells by itself. */
  private forgetMade(clusterUid: string, copies: readonly Copy[]): void {
    const isMade = (volume: string) => copies.some((copy) => copy.volume === volume && copy.isMade);
    const made = this.placements().filter((row) => row.clusterUid === clusterUid && isMade(row.volumeUid));
    if (made.length === 0) return;
    this.core.journal.transaction(() => {
      for (const { volumeUid } of made) this.forgetPlacement(clusterUid, volumeUid);
    });
  }

  /** Within a transaction. */
  private forgetPlacement(clusterUid: string, volume: string): void {
    this.core.journal.run("DELETE FROM placements WHERE clusterUid = ? AND volumeUid = ?", clusterUid, volume);
  }

  /** What was placed takes its room, also before anybody has made it. */
  private roomLeft(rooms: readonly Room[]): Room[] {
    const placed = this.placements().filter((row) => !this.isVoid(row));
    const bytesAt = (agentId: string) =>
      placed.reduce((sum, row) => sum + (row.agentId === agentId ? row.sizeBytes : 0), 0);
    return rooms.map((room) => ({ ...room, freeBytes: room.freeBytes - bytesAt(room.agentId) }));
  }

  /** Those that are taken for dead are asked only for copies that nobody else has: waiting for them takes its time. */
  private async survey(asked: CopiesRequest): Promise<Survey> {
    const { members } = this.core;
    const counting = members.counting();
    const alive = await this.ask(
      counting.filter((agentId) => members.isAlive(agentId)),
      asked,
    );
    const isMade = (volume: string) => alive.copies.some((copy) => copy.volume === volume && copy.isMade);
    const dead = counting.filter((agentId) => !members.isAlive(agentId));
    if (dead.length === 0 || asked.volumes.every(isMade)) return alive;
    const others = await this.ask(dead, asked);
    return {
      copies: [...alive.copies, ...others.copies],
      rooms: [...alive.rooms, ...others.rooms],
      near: [...alive.near, ...others.near],
      silent: [...alive.silent, ...others.silent],
    };
  }

  private async ask(agents: readonly string[], asked: CopiesRequest): Promise<Survey> {
    const { members } = this.core;
    const answers = await Promise.allSettled(agents.map(async (agentId) => members.api(agentId).copies(asked)));
    const survey = { copies: [] as Copy[], rooms: [] as Room[], near: [] as string[], silent: [] as string[] };
    for (const [index, answer] of answers.entries()) {
      const agentId = agents[index] as string;
      if (answer.status === "rejected") survey.silent.push(agentId);
      else {
        survey.copies.push(...answer.value.copies);
        const { freeBytes, promisedBytes = 0, originals = [], near = [] } = answer.value;
        survey.rooms.push({ agentId, freeBytes: freeBytes - promisedBytes, originals });
        survey.near.push(...near);
      }
    }
    return survey;
  }

  private choose(clusterUid: string, asked: LocateRequest["volumes"][number], survey: Survey): Copy {
    const siblings = survey.copies.map(({ agentId }) => agentId);
    const agentId =
      chooseHome(asked.sizeBytes, {
        rooms: survey.rooms,
        siblings,
        near: survey.near,
        ...(asked.lineage && { original: asked.lineage.pointId }),
      }) ?? this.core.agentId;
    const { journal, clock } = this.core;
    journal.transaction(() =>
      journal.run(
        `INSERT OR REPLACE INTO placements (clusterUid, volumeUid, agentId, affinity, sizeBytes, placedAt)
         VALUES (?,?,?,?,?,?)`,
        clusterUid,
        asked.volume,
        agentId,
        asked.affinity ?? null,
        asked.sizeBytes,
        clock.nowMs(),
      ),
    );
    return { volume: asked.volume, agentId, isMade: false, points: 0, epoch: 0 };
  }

  /** Undefined when there is none yet. Throws `Unreachable` when somebody who does not answer may have it. */
  private homeOf(volume: string, { copies, silent }: Survey): string | undefined {
    const home = findHome(
      copies.filter((copy) => copy.volume === volume),
      silent,
    );
    if (home.kind === "at") return home.agentId;
    if (home.kind === "new") return undefined;
    const names = home.silent.join(", ");
    throw new LongshoreError(
      "Unreachable",
      `agent ${names} may have the copy of ${volume} and does not answer; bring it back, or: longshore node forget`,
    );
  }

  private required(volume: string, survey: Survey): string {
    const agentId = this.homeOf(volume, survey);
    if (agentId === undefined) throw new LongshoreError("Unreachable", `no home was chosen for the copy of ${volume}`);
    return agentId;
  }

  /** All new copies are placed by the first agent, so that two requests at once find the same home. */
  private placer() {
    const [first = this.core.agentId] = this.core.members.counting();
    return this.core.members.api(first);
  }

  private groupHome(group: string, copies: readonly Copy[], homes: Located["homes"]): string {
    const byVolume = [...copies].sort((a, b) => (a.volume < b.volume ? -1 : 1));
    const known = byVolume.find((copy) => copy.group?.name === group && !this.isForgotten(copy.group.home));
    const [first] = [...homes].sort((a, b) => (a.volume < b.volume ? -1 : 1));
    return known?.group?.home ?? first?.agentId ?? this.core.agentId;
  }

  private isForgotten(agentId: string): boolean {
    return this.core.members.isForgotten(agentId);
  }
}
