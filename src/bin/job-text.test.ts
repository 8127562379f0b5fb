import { expect, test } from "@jest/globals";
import { pending } from "../../test/fakes/fake-rows.ts";
import type { JobView, JobVolume, ParticipantView } from "../wire/schemas.ts";
import { jobNamed, oneOfEach, renderJob, renderJobs } from "./job-text.ts";

const plain = { isColoured: false };
const time = "2026-01-01T00:00:00.000Z";
const spec = { group: { name: "shop", volumes: ["orders", "ledger"] }, location: "west", snapshot: "s1" };

function participant(agentId: string, fields: Partial<ParticipantView>): ParticipantView {
  const counts = { unitsDone: 0, epoch: 3 };
  const heard = { lastError: null, lastHeardAt: null };
  return {
    agentId,
    node: `node-${agentId}`,
    role: "source",
    state: "running",
    volumes: [],
    barrier: "Frozen",
    ...counts,
    ...heard,
    ...fields,
  };
}

function volume(name: string, fields: Partial<JobVolume>): JobVolume {
  const counts = { bytesTotal: 4096, bytesPunched: 0, bytesSent: 0, bytesStored: 0, unitsTotal: 2, unitsStored: 0 };
  const unknown = { from: null, mode: null, planDigest: null, verified: null, targetAgent: "t1", targetBarrier: null };
  return {
    volume: name,
    uid: `${name}-uid`,
    toId: "0".repeat(32),
    barrier: "Frozen",
    isPrepared: false,
    ...counts,
    ...unknown,
    ...fields,
  };
}

const job: JobView = {
  ...pending("shop.s1", spec),
  createdAt: time,
  state: "Running",
  barrier: "Frozen",
  epoch: 3,
  volumes: [
    volume("orders", { unitsStored: 1, bytesStored: 2048, mode: { kind: "Delta", reason: "CommonBase" } }),
    volume("ledger", { barrier: "Stored", isPrepared: true }),
  ],
  participants: [
    participant("s1", { role: "coordinator", volumes: ["orders"], unitsDone: 1 }),
    participant("s2", { state: "unreachable", volumes: ["ledger"], lastError: "no answer", lastHeardAt: time }),
    participant("t1", { role: "target", volumes: ["orders", "ledger", "more", "most"], node: null }),
    participant("t1", { role: "decider", barrier: "None" }),
  ],
};

/** The lines of the table that begins with this title, each column cut where its title stands. */
function columnsUnder(text: string, title: string): string[][] {
  const lines = text.split("\n");
  const at = lines.findIndex((line) => line.startsWith(title));
  const [head = "", ...rest] = lines.slice(at);
  const starts = [...head.matchAll(/\S+( \S+)*/g)].map((match) => match.index);
  const end = rest.indexOf("");
  return rest.slice(0, end).map((line) => starts.map((start, index) => line.slice(start, starts[index + 1]).trim()));
}

test("a group's job is shown with its volumes and all who take part, in columns that line up", () => {
  const text = renderJob(job, plain);
  expect(text).toMatch(/^group +shop$/m);
  expect(columnsUnder(text, "PARTICIPANT").map(([who, role, state, barrier]) => [who, role, state, barrier])).toEqual([
    ["node-s1", "coordinator", "running", "Frozen"],
    ["node-s2", "source", "unreachable", "Frozen"],
    ["t1", "target", "running", "Frozen"],
    ["node-t1", "decider", "running", "None"],
  ]);
  expect(text).toMatch(/node-s2 .* ledger +2026-01-01T00:00:00.000Z +no answer$/m);
  expect(text).toMatch(/orders,ledger,more and 1 more/);
  expect(columnsUnder(text, "VOLUME ").map(([name, barrier, voted]) => [name, barrier, voted])).toEqual([
    ["orders", "Frozen", "no"],
    ["ledger", "Stored", "asked"],
  ]);
});

test("a job of one volume is shown without a table of volumes, and with what it started from", () => {
  const text = renderJob({ ...job, spec: { volume: "orders", location: "west", snapshot: "s1" } }, plain);
  expect(text).not.toMatch(/VOTED/);
  expect(text).toMatch(/^from +nothing$/m);
});

test("a list has one line for each job, as told by the agent that knows most of it", () => {
  const older = { ...job, epoch: 2, barrier: "Joined" as const };
  const deaf = { ...job, participants: [], barrier: "None" as const };
  for (const views of [
    [job, older, deaf],
    [older, deaf, job],
  ])
    expect(oneOfEach(views)).toEqual([job]);
  expect(renderJobs(oneOfEach([older, job]), { ...plain, nowMs: Date.parse(time) })).toMatch(
    /^shop.s1 +shop \(2 volumes\) +west/m,
  );
});

const uids = ["3c8e2f0a-0000-4000-8000-000000000001", "3c8e2f0a-0000-4000-8000-000000000002"] as const;

test.each([
  // what there is, what is asked for, which one it is
  [["now", `now.${uids[0]}`], "now", "now"],
  [[`now.${uids[0]}`, `later.${uids[1]}`], "now", `now.${uids[0]}`],
  [[`now.${uids[0]}`, `now.${uids[1]}`], `now.${uids[1]}`, `now.${uids[1]}`],
  [[`now.${uids[0]}.2`], "now", `now.${uids[0]}.2`],
  [[`now.x.${uids[0]}`, "now.s1", "nowhere"], "now", undefined],
])("of the jobs %j, %s is %s", (names, asked, expected) => {
  const views = names.map((name) => pending(name, spec));
  expect(jobNamed(asked, views)?.name).toBe(expected);
});

test("a MigrationJob's name that stands for several jobs is refused, and they are named", () => {
  const names = [`now.${uids[0]}`, `now.${uids[1]}`];
  const views = names.map((name) => pending(name, spec));
  expect(() => jobNamed("now", [...views, ...views])).toThrow(`name one: ${names.join(", ")}`);
});
