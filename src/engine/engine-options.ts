// What the engine is given: everything outside it comes in here, so that the simulator can give something else.
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { unitBytesMax } from "../domain/plan.ts";
import type { StorageBackend } from "../storage/backend.ts";
import type { LaneDialer, LaneServer } from "../transfer/lane.ts";
import type { MemberApi } from "../wire/member.ts";
import type { PeerApi } from "../wire/peer.ts";
import type { LocationSpec, Member, Transport } from "../wire/schemas.ts";
import type { Journal } from "./journal.ts";

/** A connection to the target cluster of one location. */
export interface PeerConnection {
  /** Whichever agent answers first. */
  readonly api: PeerApi;
  /** One agent of it, such as the home of a copy; `Unreachable` when another one answers at its address. */
  at(member: Pick<Member, "agentId" | "address">): PeerApi;
  readonly lanes: Readonly<Record<Transport, LaneDialer>>;
  close(): Promise<void>;
}

/** A connection to one agent of the own cluster. */
export interface MemberConnection {
  readonly api: MemberApi;
  close(): Promise<void>;
}

export interface EngineLimits {
  /** Jobs that stream at once on this node. */
  readonly jobsMax: number;
  /** Jobs at once to one location, unless the location says otherwise. */
  readonly jobsPerLocationMax: number;
  readonly lanesPerJob: number;
  /** Data of one unit at most, a multiple of 4096: what a broken connection costs, and what is stored at once. */
  readonly unitBytes: number;
  /** Units of a plan that go into one request, 1,024 at most. */
  readonly pageUnits: number;
  /** Bytes of one job that may be on their way, sent and not yet acknowledged as stored. */
  readonly windowBytes: number;
  /** A term ends this long after its coordinator was last heard. */
  readonly leaseMs: number;
  /** Consecutive attempts without progress before a job is given up. */
  readonly attemptsMax: number;
  readonly retryDelayMs: number;
  readonly retryDelayMsMax: number;
  /** A job without progress for this long is given up, however many attempts it had. */
  readonly deadlineMs: number;
  /** Staging and new snapshots stop when less would be left. */
  readonly reserveBytes: number;
  /** Staging that no job goes on with is removed after this long. */
  readonly stagingAgeMs: number;
  /** A waiting clone nobody asks for again is dropped after this long. */
  readonly cloneWaitMs: number;
  readonly probeIntervalMs: number;
  /** How often an agent meets the others of its cluster; three missed meetings make one unreachable. */
  readonly memberIntervalMs: number;
  /** A snapshot, of one volume or a group, holds writers up for no longer than this. */
  readonly freezeMs: number;
  /** Finished jobs are forgotten after this long. */
  readonly jobHistoryMs: number;
}

export const defaultLimits: EngineLimits = {
  jobsMax: 8,
  jobsPerLocationMax: 4,
  lanesPerJob: 2,
  unitBytes: unitBytesMax,
  pageUnits: 1024,
  windowBytes: 256 << 20,
  leaseMs: 30_000,
  attemptsMax: 10,
  retryDelayMs: 500,
  retryDelayMsMax: 30_000,
  deadlineMs: 30 * 60_000,
  reserveBytes: 64 << 20,
  stagingAgeMs: 24 * 3_600_000,
  cloneWaitMs: 15 * 60_000,
  probeIntervalMs: 30_000,
  memberIntervalMs: 2_000,
  freezeMs: 10_000,
  jobHistoryMs: 7 * 24 * 3_600_000,
};

export interface EngineOptions {
  /** Folder of the journal; exclusively this engine's. */
  readonly dataDir: string;
  readonly cluster: { readonly uid: string; readonly name: string };
  readonly node: string;
  readonly version: string;
  /** Control and lane addresses that other agents reach this one at. */
  readonly addresses: { readonly address: string; readonly laneAddress: string };
  /** Addresses (host:port) of agents of the own cluster, from which all others are learnt; none for a single agent. */
  readonly seeds: readonly string[];
  /** All addresses that a seed stands for, which may be a name of all agents; throws when that cannot be found out. */
  readonly resolveSeed: (seed: string) => Promise<readonly string[]>;
  /**
   * Opens a connection to an agent of the own cluster: to the one of that id (`Unreachable` when another one answers), or
   * to whoever is there. Its calls throw what the network does.
   */
  readonly connectMember: (address: string, agentId?: string) => MemberConnection;
  /** Opens the journal in {@link dataDir}. */
  readonly openJournal: (folder: string) => Journal;
  readonly storage: StorageBackend;
  /** Those this agent serves. */
  readonly lanes: Readonly<Partial<Record<Transport, LaneServer>>>;
  /** Opens a connection to a location's cluster; its calls throw what the network does, and `Untrusted`. */
  readonly connect: (location: LocationSpec) => PeerConnection;
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly limits: EngineLimits;
}
