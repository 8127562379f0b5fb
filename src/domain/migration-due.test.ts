import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { type LocationFacts, planMigrations, type SnapshotFacts, type VolumeFacts } from "./migration-due.ts";

/** `1x 2x 3 4d 5r`: x expired, d on demand, l lost, r expired and released; the number is the generation. */
function snapshots(text: string): SnapshotFacts[] {
  return text
    .split(" ")
    .filter(Boolean)
    .map((word) => {
      const generation = Number.parseInt(word, 10);
      return {
        name: `s${generation}`,
        pointId: `p${generation}`,
        generation,
        origin: word.includes("d") ? "demand" : "schedule",
        isExpired: /[xrl]/.test(word),
        isWhole: !word.includes("l"),
        isReleased: word.includes("r"),
      };
    });
}

/** `a@2` has base 2; `b` none; `a@2>3` a job from 2 to 3; `a@2!3` tried 3; `a@2#` is blocked. */
function location(text: string): LocationFacts {
  const [, name = "", base, job, tried, blocked] = /^(\w)(?:@(\d+))?(?:>(\d+))?(?:!(\d+))?(#)?$/.exec(text) ?? [];
  return {
    name,
    ...(base && { base: { pointId: `p${base}`, generation: Number(base) } }),
    jobs: job ? [{ toSnapshot: `s${job}`, ...(base && { fromPointId: `p${base}` }) }] : [],
    triedSnapshots: tried ? [`s${tried}`] : [],
    ...(blocked && { blocked: "suspended" }),
  };
}

function facts(list: string, locations: string, migrateOn: VolumeFacts["migrateOn"] = "Expiry"): VolumeFacts {
  const each = locations.split(" ").filter(Boolean).map(location);
  return { volume: "v", snapshots: snapshots(list), locations: each, wanted: each.map(({ name }) => name), migrateOn };
}

function show(volume: VolumeFacts): string {
  const plan = planMigrations(volume);
  return [
    ...plan.jobs.map((job) => `${job.location}:${job.generation}`),
    ...plan.blocked.map(({ location }) => `${location}:blocked`),
    ...plan.releases.map((name) => `-${name.slice(1)}`),
  ].join(" ");
}

test.each([
  ["nothing has expired", "1 2", "a", ""],
  ["the first copy", "1x 2", "a", "a:1"],
  ["a backlog becomes one job to the newest expired", "1x 2x 3x 4", "a", "a:3 -1 -2"],
  ["the next increment keeps its base", "1x 2x 3", "a@1", "a:2"],
  ["the base is not released, what lies behind it is", "1x 2x 3", "a@2", "-1"],
  ["one that expires behind the base is just released", "1x 2d 3", "a@2", "-1"],
  ["a job keeps what it reads", "1x 2x 3x 4x 5", "a@1>3", "-2"],
  ["one job at a time", "1x 2x 3x", "a@1>2", ""],
  ["locations do not wait for each other", "1x 2x 3x", "a@1>2 b@2", "b:3"],
  ["each location has its own base", "1x 2x 3x 4", "a@1 b@2", "a:3 b:3"],
  ["what no location needs goes though one is far behind", "1x 2x 3x 4x 5", "a@1 b@4", "a:4 -2 -3"],
  ["a failed job is not tried again", "1x 2x 3", "a@1!2", ""],
  ["but its changes are part of the next", "1x 2x 3x", "a@1!2", "a:3 -2"],
  ["a failed first copy as well", "1x 2x", "a!1", "a:2 -1"],
  ["a blocked location pins its base and the newest, nothing else", "1x 2x 3x 4x 5", "a@1#", "a:blocked -2 -3"],
  ["a snapshot that is lost is not brought over", "1x 2xl 3", "a", "a:1 -2"],
  ["a snapshot on demand is due for nobody else", "1x 2d 3", "a@1 b@1>2", ""],
  ["and goes when its job has ended", "1x 2d 3", "a@1 b@1", "-2"],
  ["and stays while it is a base", "1x 2d 3x", "a@2", "a:3 -1"],
  ["a released one is not released again", "1r 2x", "a@2", ""],
  ["a released one is not brought over", "1r 2", "a", ""],
])("%s: [%s] at [%s] gives [%s]", (_, list, locations, expected) => {
  expect(show(facts(list, locations))).toBe(expected);
});

test.each([
  ["the newest is due at once", "1x 2 3", "a@1", "a:3"],
  ["an expired one that was never brought over is not needed", "1x 2x 3", "a@1", "a:3 -2"],
  ["nothing is due twice", "1x 2", "a@2", "-1"],
  ["a snapshot that exists is not released before it expires", "1 2 3", "a@3", ""],
])("on creation, %s: [%s] at [%s] gives [%s]", (_, list, locations, expected) => {
  expect(show(facts(list, locations, "Creation"))).toBe(expected);
});

test("a location that is no longer wanted gets nothing, keeps its base, and pins nothing else", () => {
  expect(show({ ...facts("1x 2x 3x", "a@1 b@2"), wanted: ["b"] })).toBe("b:3");
  expect(show({ ...facts("1x 2x 3x", "a@1"), wanted: [] })).toBe("-2 -3");
});

const anyFacts = fc
  .tuple(
    fc.array(fc.constantFrom("", "x", "x", "xl", "d", "r"), { maxLength: 8 }),
    fc.array(
      fc.record({
        base: fc.option(fc.nat(9)),
        job: fc.option(fc.nat(9)),
        tried: fc.option(fc.nat(9)),
        blocked: fc.boolean(),
      }),
      { maxLength: 4 },
    ),
    fc.constantFrom("Expiry" as const, "Creation" as const),
  )
  .map(([flags, locations, migrateOn]) =>
    facts(
      flags.map((flag, index) => `${index + 1}${flag}`).join(" "),
      locations
        .map(({ base, job, tried, blocked }, index) =>
          [
            "abcd"[index],
            base ? `@${base}` : "",
            job ? `>${job}` : "",
            tried ? `!${tried}` : "",
            blocked ? "#" : "",
          ].join(""),
        )
        .join(" "),
      migrateOn,
    ),
  );

test("a release never takes what any location needs: a base, a job's ends, or what a job started now would bring", () => {
  fc.assert(
    fc.property(anyFacts, (volume) => {
      const { jobs, releases } = planMigrations(volume);
      for (const name of releases) {
        const snapshot = volume.snapshots.find((each) => each.name === name);
        expect(jobs.map((job) => job.snapshot)).not.toContain(name);
        for (const { base, jobs: running } of volume.locations) {
          expect(base?.pointId).not.toBe(snapshot?.pointId);
          for (const job of running) expect([job.fromPointId, job.toSnapshot]).not.toContain(snapshot?.pointId);
          for (const job of running) expect(job.toSnapshot).not.toBe(name);
        }
      }
    }),
  );
});

test("of the expired snapshots at most one for each base, each job's ends, and the newest are kept", () => {
  fc.assert(
    fc.property(anyFacts, (volume) => {
      const { releases } = planMigrations(volume);
      const kept = volume.snapshots.filter(
        (each) => each.isExpired && !each.isReleased && !releases.includes(each.name),
      );
      const jobs = volume.locations.flatMap((each) => each.jobs).length;
      expect(kept.length).toBeLessThanOrEqual(volume.locations.length + 2 * jobs + 1);
    }),
  );
});

test("a job goes forward, to a location without one, and each location gets at most one", () => {
  fc.assert(
    fc.property(anyFacts, (volume) => {
      const { jobs } = planMigrations(volume);
      expect(new Set(jobs.map((job) => job.location)).size).toBe(jobs.length);
      for (const job of jobs) {
        const target = volume.locations.find(({ name }) => name === job.location);
        expect(target?.jobs).toEqual([]);
        expect(job.generation).toBeGreaterThan(target?.base?.generation ?? 0);
        expect(target?.triedSnapshots).not.toContain(job.snapshot);
      }
    }),
  );
});
