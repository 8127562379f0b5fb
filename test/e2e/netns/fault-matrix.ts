// The matrix of faults: who is hit, at which barrier, and how. Each cell is a job of its own, held exactly at its barrier by
// gates in front of the calls that lead on from it.
import { setTimeout as sleep } from "node:timers/promises";
import { eventually } from "../process.ts";
import type { Gate } from "./gate-messages.ts";
import type { GatedAgent, HeldGate } from "./gated-agent.ts";
import type { Cast, GroupVolumes } from "./group-volumes.ts";
import { jobPatience } from "./group-volumes.ts";
import { leaseMs, type Sites } from "./sites.ts";

export const victims = ["coordinator", "source", "decider", "target"] as const satisfies (keyof Cast)[];
export type Victim = (typeof victims)[number];

export const faults = ["kill", "stop", "partition"] as const;
export type Fault = (typeof faults)[number];

/** A barrier, and the calls that would lead on from it; all participants make them, or the coordinator alone. */
export const barriers = {
  Joined: { call: "peer.freeze", moment: "before", by: "all" },
  Frozen: { call: "peer.laneTicket", moment: "before", by: "all" },
  Stored: { call: "peer.commitGroup", moment: "before", by: "coordinator" },
  Committed: { call: "peer.commitGroup", moment: "after", by: "coordinator" },
  Released: { call: "peer.releaseGroup", moment: "before", by: "coordinator" },
} as const;
export type BarrierName = keyof typeof barriers;

export interface Cell {
  readonly barrier: BarrierName;
  readonly victim: Victim;
  readonly fault: Fault;
}

export const cells: readonly Cell[] = faults.flatMap((fault) =>
  (Object.keys(barriers) as BarrierName[]).flatMap((barrier) => victims.map((victim) => ({ barrier, victim, fault }))),
);

/** A stop or a partition lasts so long: terms end meanwhile. */
const pastLeaseMs = 1.5 * leaseMs;

/** Runs one cell to its end: the job has succeeded, everything has arrived, and nothing is left behind. */
export async function runCell(sites: Sites, group: GroupVolumes, { barrier, victim, fault }: Cell): Promise<void> {
  const planned = await group.cast();
  const snapshot = await group.writeAndSnapshot();
  const { call, moment, by } = barriers[barrier];
  const gates = await closeAtSources(group, { call, moment });
  const job = await group.begin(snapshot);
  const cast = by === "all" ? planned : coordinatedBy((await firstHeld(gates)).agent, planned);
  if (by === "all") await Promise.all(gates.map(({ gate }) => gate.held()));
  const hit = cast[victim];
  await strike(sites, hit, fault);
  for (const { gate } of gates) gate.open();
  if (fault !== "kill") {
    await sleep(pastLeaseMs);
    // Without its coordinator a job goes on elsewhere, and only then the old one is back.
    if (victim === "coordinator") await takenOver(group, { job, without: cast.coordinator, decider: cast.decider });
  }
  await sites.ready();
  await group.succeeded(job);
  await group.check(snapshot);
}

export interface SourceGate {
  readonly agent: GatedAgent;
  readonly gate: HeldGate;
}

/** At all of them, whoever makes the call. */
export function closeAtSources(group: GroupVolumes, where: Pick<Gate, "call" | "moment">): Promise<SourceGate[]> {
  const close = (agent: GatedAgent) => agent.close({ side: "calling", ...where });
  return Promise.all(group.volumes.map(async ({ source }) => ({ agent: source, gate: await close(source) })));
}

/** For calls that only the coordinator makes: one that a busy machine keeps from renewing its term is taken over from. */
export function firstHeld(gates: readonly SourceGate[]): Promise<SourceGate> {
  return eventually("the coordinator's call being held", async () => gates.find(({ gate }) => gate.isHeld()));
}

export function coordinatedBy(coordinator: GatedAgent, planned: Cast): Cast {
  const source = planned.source === coordinator ? planned.coordinator : planned.source;
  return { ...planned, coordinator, source };
}

async function strike({ agents, network }: Sites, hit: GatedAgent, fault: Fault): Promise<void> {
  switch (fault) {
    case "kill":
      return hit.kill();
    case "stop":
      return hit.stop();
    case "partition": {
      const others = agents.filter((agent) => agent !== hit).map(({ name }) => name);
      return network.cut([hit.name], others);
    }
  }
}

/** Whose the group's last term is; one that ended by itself is still told as that of its claimant. */
export async function claimantOf(group: GroupVolumes, { decider }: Pick<Cast, "decider">): Promise<string | undefined> {
  const [row] = await decider.rows<{ claimant: string }>("SELECT claimant FROM groups WHERE name = ?", group.name);
  return row?.claimant;
}

interface TakeOver {
  readonly job: string;
  readonly without: GatedAgent;
  readonly decider: GatedAgent;
}

/** Another participant has had a term granted, or there was nothing left to do for anybody else. */
async function takenOver(group: GroupVolumes, { job, without, decider }: TakeOver): Promise<void> {
  const others = group.volumes.map(({ source }) => source).filter((agent) => agent !== without);
  await eventually(
    `job ${job} being taken over`,
    async () => {
      if ((await claimantOf(group, { decider })) !== without.id) return true;
      const views = await Promise.all(others.map(({ api }) => api.getJob(job)));
      return views.every(({ finishedAt }) => finishedAt !== null) ? true : undefined;
    },
    jobPatience,
  );
}
