import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { seenAgent, sourceWorld } from "../../test/fakes/operator-world.ts";
import { silentLog } from "../base/log.ts";
import { LongshoreError } from "../domain/errors.ts";
import { VolumeMigrations } from "./kinds.ts";
import { openSnapshotPace, type SnapshotPace, type Turn } from "./snapshot-pace.ts";
import { volumeMigrationController } from "./volume-migration.ts";

function leave(turn: Turn | undefined): void {
  if (turn?.kind !== "go") throw new Error("it has no turn to leave");
  turn.leave();
}

test("an agent takes four snapshots at once; the fifth waits until one of them is over", () => {
  const pace = openSnapshotPace(new FakeClock());
  const turns = ["a", "b", "c", "d", "e"].map((who) => pace.ask(who, ["agent-1"]));
  expect(turns.map(({ kind }) => kind)).toEqual(["go", "go", "go", "go", "wait"]);
  // Other agents have their own.
  expect(pace.ask("f", ["agent-2"]).kind).toBe("go");
  leave(turns[0]);
  expect(pace.ask("e", ["agent-1"]).kind).toBe("go");
  expect(pace.ask("g", ["agent-1"]).kind).toBe("wait");
});

test("a turn that is left twice makes room once", () => {
  const pace = openSnapshotPace(new FakeClock());
  const turns = ["a", "b", "c", "d"].map((who) => pace.ask(who, ["agent-1"]));
  leave(turns[0]);
  leave(turns[0]);
  expect(["e", "f"].map((who) => pace.ask(who, ["agent-1"]).kind)).toEqual(["go", "wait"]);
});

test("the snapshot of a group has its turn when all its agents have room, and then takes up room on each once", () => {
  const pace = openSnapshotPace(new FakeClock());
  const turns = ["a", "b", "c", "d"].map((who) => pace.ask(who, ["agent-1"]));
  expect(pace.ask("group", ["agent-1", "agent-2"]).kind).toBe("wait");
  leave(turns[0]);
  expect(pace.ask("group", ["agent-1", "agent-2", "agent-2"]).kind).toBe("go");
  expect(["e", "f", "g", "h"].map((who) => pace.ask(who, ["agent-2"]).kind)).toEqual(["go", "go", "go", "wait"]);
});

test("those that wait ask again one after the other, and the later the more there are; who gives up is forgotten", async () => {
  const clock = new FakeClock();
  const pace = openSnapshotPace(clock);
  for (const who of ["a", "b", "c", "d"]) pace.ask(who, ["agent-1"]);
  const waitOf = (who: string) => {
    const turn = pace.ask(who, ["agent-1"]);
    return turn.kind === "wait" ? turn.waitMs : 0;
  };
  const waits = Array.from({ length: 2_000 }, (_, index) => waitOf(`v${index}`));
  expect(waits.slice(0, 3)).toEqual([260, 270, 280]);
  expect(Math.max(...waits)).toBe(10_000);
  // The same one again is no second one.
  expect(waitOf("v0")).toBe(10_000);
  await clock.advance(60_000);
  expect(waitOf("v1")).toBe(260);
});

test("however turns are asked for and left, no agent ever has more than four", () => {
  const agent = fc.constantFrom("x", "y", "z");
  const asks = fc.array(fc.record({ agents: fc.array(agent, { minLength: 1 }), leaves: fc.boolean() }));
  fc.assert(
    fc.property(asks, (all) => {
      const pace = openSnapshotPace(new FakeClock());
      const running: { readonly agents: ReadonlySet<string>; readonly turn: Turn }[] = [];
      all.forEach(({ agents, leaves }, index) => {
        if (leaves) leave(running.shift()?.turn ?? { kind: "go", leave: () => undefined });
        const count = (name: string) => running.filter((one) => one.agents.has(name)).length;
        const hasRoom = agents.every((name) => count(name) < 4);
        const turn = pace.ask(`v${index}`, agents);
        expect(turn.kind).toBe(hasRoom ? "go" : "wait");
        if (turn.kind === "go") running.push({ agents: new Set(agents), turn });
      });
    }),
  );
});

test("a volume that waits for its turn has no snapshot yet, and says what went wrong when it had its turn last", async () => {
  const world = sourceWorld();
  world.agent.putSnapshot = async () => {
    throw new LongshoreError("DiskFull", "no room");
  };
  await world.runUntil(3_600_000);
  const { cluster, clock, metrics, agent } = world;
  const agents = { all: () => [seenAgent(agent)], members: () => [] };
  const pace: SnapshotPace = { ask: () => ({ kind: "wait", waitMs: 250 }) };
  const controller = volumeMigrationController({ cluster, clock, metrics, agents }, pace);
  const context = { signal: new AbortController().signal, log: silentLog, reconcileId: "1" };
  expect(await controller.reconcile({ name: "pv1" }, context)).toEqual({ kind: "again", afterMs: 250 });
  const { status } = world.server.require(VolumeMigrations, { name: "pv1" });
  expect(status?.lastScheduleTime).toBeUndefined();
  const found = (type: string) => status?.conditions?.find((each) => each.type === type);
  expect(found("Snapshotted")).toMatchObject({ status: "False", message: expect.stringContaining("no room") });
  expect(found("Ready")).toMatchObject({ status: "False", reason: "SnapshotFailed" });
});
