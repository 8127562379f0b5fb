import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { type LocationFacts, planMigrations, type SnapshotFacts, type VolumeFacts } from "./migration-due.ts";
import { dueOfSnapshot, snapshotNameAt } from "./names.ts";

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

/** A group's snapshot `s5` is of the run of this hour; `5g` was taken together with the others, `5` alone. */
function inGroup(volume: string, list: string, locations: string): VolumeFacts {
  const plain = facts(list.replace(/g/g, ""), locations);
  const words = list.split(" ").filter(Boolean);
  const tied = plain.snapshots.map((snapshot, index) => ({
    ...snapshot,
    name: hourly(snapshot.generation),
    pointId: `${volume}${snapshot.generation}`,
    ...(words[index]?.includes("g") && { groupPoint: `g${snapshot.generation}` }),
  }));
  const rename = (name: string) => hourly(Number(name.slice(1)));
  const own = plain.locations.map(({ base, ...rest }) => ({
    ...rest,
    ...(base && { base: { ...base, pointId: `${volume}${base.generation}` } }),
    jobs: rest.jobs.map((job) => ({ ...job, toSnapshot: rename(job.toSnapshot) })),
    triedSnapshots: rest.triedSnapshots.map(rename),
  }));
  return { ...plain, volume, snapshots: tied, locations: own };
}

const hourly = (hour: number) => snapshotNameAt(hour * 3_600_000);

/** `list at locations since hour`; a list of `?` is of a volume that is out of sight. */
function group(...texts: string[]): VolumeFacts[] {
  const all = texts.map((text, index) => {
    const [, list = "", locations = "", since = "0"] = /^(.*?) at (.*?)(?: since (\d+))?$/.exec(text) ?? [];
    const isSeen = list !== "?";
    const own = inGroup("abc"[index] ?? "", isSeen ? list : "", locations);
    return { own, peer: { ...own, snapshots: isSeen ? own.snapshots : undefined, sinceMs: Number(since) * 3_600_000 } };
  });
  return all.map(({ own }) => ({ ...own, peers: all.filter((other) => other.own !== own).map(({ peer }) => peer) }));
}

function showGroup(volumes: readonly VolumeFacts[]): string {
  return volumes
    .map((volume) => {
      const { jobs, releases, blocked } = planMigrations(volume);
      const hour = (name: string) => (dueOfSnapshot(name) ?? Number.NaN) / 3_600_000;
      return [
        ...jobs.map((job) => `${job.location}:${job.group ? job.group.volumes.join("") : ""}${hour(job.snapshot)}`),
        ...blocked.map(({ location }) => `${location}:blocked`),
        ...releases.map((name) => `-${hour(name)}`),
      ].join(" ");
    })
    .join(" | ");
}

test.each([
  ["the first copy", ["1gx 2g at w", "1gx 2g at w"], "w:ab1 | w:ab1"],
  ["the next increment", ["1gx 2gx 3g at w@1", "1gx 2gx 3g at w@1"], "w:ab2 | w:ab2"],
  ["what expires for one expires for all", ["1gx 2g at w", "1g 2g at w"], "w:ab1 | w:ab1"],
  ["a group of one volume", ["1gx 2g at w"], "w:a1"],
  ["one that has only one part is let go of", ["1gx 2g at w", "2g at w"], "-1 | "],
  [
    "one whose part is lost goes where it is lost, and the next takes over",
    ["1gxl 2gx at w", "1gx 2gx at w"],
    "w:ab2 -1 | w:ab2 -1",
  ],
  ["one whose part is lost is kept by the others until it expires", ["1gxl 2g at w", "1g 2g at w"], "-1 | "],
  ["one whose part was released is not brought over", ["1gr 2g at w", "1gx 2g at w"], " | -1"],
  ["while a volume is out of sight nothing is begun, and nothing let go of", ["1gx 2gx at w", "? at w"], " | "],
  [
    "a location that has one of them further waits for the others",
    ["1gx 2gx 3 at w@3", "1gx 2gx 3g at w@1"],
    "-1 -2 | -2",
  ],
  ["a job of any of them holds up the group", ["1gx 2gx at w@1", "1gx 2gx at w@1>2"], " | "],
  ["a failed job is not tried again by any", ["1gx 2gx at w@1!2", "1gx 2gx at w@1"], " | "],
  ["its changes are part of the next", ["1gx 2gx 3gx at w@1!2", "1gx 2gx 3gx at w@1!2"], "w:ab3 -2 | w:ab3 -2"],
  [
    "a blocked location pins the base and the newest of all",
    ["1gx 2gx 3gx at w@1#", "1gx 2gx 3gx at w@1#"],
    "w:blocked -2 | w:blocked -2",
  ],
  ["what was taken before it joined is brought over alone", ["1x 2g at w", "2g at w since 1"], "w:1 | "],
  ["one that joined later has no part in earlier ones", ["1gx 2g at w", "2g at w since 1"], "w:a1 | "],
  ["one that joined before has", ["1gx 2g at w", "2g at w since 0"], "-1 | "],
  ["each location gets the group by itself", ["1gx 2gx at v@1 w@2", "1gx 2gx at v@1 w@2"], "v:ab2 | v:ab2"],
])("of a group, %s: %j gives [%s]", (_, texts, expected) => {
  expect(showGroup(group(...texts))).toBe(expected);
});

test("one that has left its group goes alone", () => {
  const [alone] = group("1gx 2g at w");
  const { peers: _, ...left } = alone as VolumeFacts;
  expect(showGroup([left])).toBe("w:1");
});

const word = fc.constantFrom("g", "gx", "gx", "gxl", "gr", "x", "");
const memberFacts = fc.record({
  flags: fc.array(word, { minLength: 4, maxLength: 4 }),
  base: fc.option(fc.integer({ min: 1, max: 4 })),
  since: fc.nat(5),
  isSeen: fc.boolean(),
});

test("whichever volume of a group decides, it is the same job, and none lets go of what the job would bring", () => {
  fc.assert(
    fc.property(fc.array(memberFacts, { minLength: 1, maxLength: 3 }), (members) => {
      const texts = members.map(({ flags, base, since, isSeen }, index) => {
        // What it has by itself is from before it joined.
        const joined = flags.findIndex((flag) => flag.includes("g"));
        const own = flags.map(
          (flag, at) => `${at + 1}${at > joined && joined >= 0 && !flag.includes("g") ? "g" : ""}${flag}`,
        );
        const list = isSeen || index === 0 ? own.join(" ") : "?";
        return `${list} at w${base ? `@${base}` : ""} since ${since}`;
      });
      const volumes = group(...texts);
      for (const volume of volumes) {
        for (const job of planMigrations(volume).jobs) {
          if (job.group === undefined) continue;
          for (const other of volumes.filter((each) => job.group?.volumes.includes(each.volume))) {
            const plan = planMigrations(other);
            expect(plan.jobs.map((each) => each.group)).toEqual([job.group]);
            expect(plan.releases).not.toContain(job.snapshot);
          }
        }
      }
    }),
    { numRuns: 500 },
  );
});
