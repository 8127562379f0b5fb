// Every CEL rule of crds/*.yaml, tried on a real API server with an object that it accepts and one that it refuses. The
// rules are read from the files: one without a row here fails the first test.
import { readdirSync, readFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { parse } from "yaml";
import { type ControlPlane, startControlPlane } from "../e2e/control-plane.ts";
import { areEstablished } from "../e2e/kubectl.ts";
import { missing, needs } from "../needs.ts";

const folder = join(import.meta.dirname, "../../crds");

interface Rule {
  readonly kind: string;
  readonly message: string;
}

type Json = Record<string, unknown>;

const definitions = readdirSync(folder)
  .filter((file) => file.endsWith(".yaml") && file !== "kustomization.yaml")
  .map((file) => parse(readFileSync(join(folder, file), "utf8")));

function rulesIn(kind: string, schema: Json): Rule[] {
  const own = ((schema["x-kubernetes-validations"] ?? []) as { message?: string }[]).map(({ message }) => ({
    kind,
    message: message ?? "",
  }));
  const children = [
    ...Object.values((schema.properties ?? {}) as Record<string, Json>),
    ...[schema.items, schema.additionalProperties].filter((child) => child !== undefined),
  ] as Json[];
  return [...own, ...children.flatMap((child) => rulesIn(kind, child))];
}

const rules: Rule[] = definitions.flatMap(({ spec }) =>
  rulesIn(spec.names.kind, spec.versions[0].schema.openAPIV3Schema),
);

const pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const uid = "6f2c1a58-0000-4000-8000-000000000001";
const uid2 = "6f2c1a58-0000-4000-8000-000000000002";
const location = { clusterName: "west", seeds: ["agent.west.example:7420"], caBundle: pem };
const schedule = { interval: "1h", retention: { age: "24h" } };
const cron = { schedule: "0 * * * *", retention: { age: "24h" } };
const volume = { name: "x", uid: "u", handle: "h", driver: "csi.longshore.dev" };
const policy = { enabled: true, locations: ["west"], schedule: "hourly" };
const job = { volumeName: "pv1", location: "west" };
const group = { namespace: "shop", name: "Orders_1" };
const groupJob = { group, location: "west" };
const wholeGroupJob = { ...groupJob, group: { ...group, volumes: ["pv1", "pv2"] }, toSnapshot: "s1" };
const source = { clusterName: "east", caBundle: pem };
const pinning = (pinned: Json) => ({ ...source, publications: [{ namespace: "restore", pinned }] });
const migrated = { source: "east", sourceClusterUid: uid, sourceVolume: "v", volume: "m" };
const window = { start: "08:00", end: "18:00", limit: "1Mi" };
const withLimit = (bandwidth: Json) => ({ ...location, bandwidth });

interface Example {
  readonly spec: Json;
  /** The object's name; one of our own by default. */
  readonly name?: string;
}

interface Row extends Rule {
  readonly accepted: Example;
  readonly refused: Example;
  /** What was there before the examples are put in its place: for rules on changes. */
  readonly before?: { readonly spec: Json; readonly status?: Json };
}

/** A rule on one object. */
function rule(kind: string, message: string, accepted: Json, refused: Json): Row {
  return { kind, message, accepted: { spec: accepted }, refused: { spec: refused } };
}

/** A rule on a change: `accepted` and `refused` each replace `before`. */
function change(kind: string, message: string, before: Json, accepted: Json, refused: Json): Row {
  return { ...rule(kind, message, accepted, refused), before: { spec: before } };
}

function names(kind: string, message: string, spec: Json, accepted: string, refused: string): Row {
  return { kind, message, accepted: { spec, name: accepted }, refused: { spec, name: refused } };
}

const long = "n".repeat(63);

const rows: readonly Row[] = [
  change(
    "MigrationLocation",
    "clusterName is immutable",
    location,
    { ...location, suspend: true },
    { ...location, clusterName: "east" },
  ),
  rule(
    "MigrationLocation",
    "a seed's port must be at most 65535",
    { ...location, seeds: ["[fd00::1]:65535"] },
    { ...location, seeds: ["west:65536"] },
  ),
  rule("MigrationLocation", "caBundle must hold PEM certificates", location, { ...location, caBundle: "west-ca" }),
  rule(
    "MigrationLocation",
    "caBundle must not hold a private key",
    { ...location, caBundle: pem + pem },
    { ...location, caBundle: `${pem}-----BEGIN PRIVATE KEY-----\n` },
  ),
  rule("MigrationLocation", "bandwidth needs limit, windows, or both", withLimit({ limit: "1Mi" }), withLimit({})),
  rule(
    "MigrationLocation",
    "timeZone is only of use together with windows",
    withLimit({ timeZone: "Europe/Oslo", windows: [window] }),
    withLimit({ limit: "1Mi", timeZone: "Europe/Oslo" }),
  ),
  rule(
    "MigrationLocation",
    "a window must not start and end at the same time",
    withLimit({ windows: [{ ...window, end: "07:00" }] }),
    withLimit({ windows: [{ ...window, end: "08:00" }] }),
  ),
  {
    ...change(
      "MigrationLocation",
      "spec.clusterUid is immutable once the cluster has answered with it",
      { ...location, clusterUid: uid },
      { ...location, clusterUid: uid, suspend: true },
      { ...location, clusterUid: uid2 },
    ),
    before: { spec: { ...location, clusterUid: uid }, status: { clusterUid: uid } },
  },
  {
    // One that was never confirmed may be corrected; what is refused here is its removal once it was.
    ...change(
      "MigrationLocation",
      "spec.clusterUid is immutable once the cluster has answered with it",
      {},
      { ...location, clusterUid: uid },
      location,
    ),
    before: { spec: { ...location, clusterUid: uid }, status: { clusterUid: uid } },
  },
  names(
    "MigrationLocation",
    "the name of a MigrationLocation must be at most 63 characters",
    location,
    long,
    `${long}n`,
  ),

  rule("SnapshotSchedule", "give exactly one of interval and schedule", schedule, { ...schedule, ...cron }),
  rule("SnapshotSchedule", "give exactly one of interval and schedule", cron, { retention: { age: "24h" } }),
  rule(
    "SnapshotSchedule",
    "timeZone is only of use together with schedule",
    { ...cron, timeZone: "Europe/Oslo" },
    { ...schedule, timeZone: "Europe/Oslo" },
  ),
  rule(
    "SnapshotSchedule",
    "jitter must be shorter than interval",
    { ...schedule, jitter: "59m" },
    { ...schedule, jitter: "1h" },
  ),
  rule(
    "SnapshotSchedule",
    "retention.age must be at least interval",
    { ...schedule, retention: { age: "60m" } },
    { ...schedule, retention: { age: "59m", count: 3 } },
  ),
  rule(
    "SnapshotSchedule",
    "interval must be between 1s and 87600h",
    { interval: "1s", retention: { count: 2 } },
    { interval: "999ms", retention: { count: 2 } },
  ),
  rule(
    "SnapshotSchedule",
    "interval must be between 1s and 87600h",
    { interval: "87600h", retention: { count: 2 } },
    { interval: "87601h", retention: { count: 2 } },
  ),
  rule("SnapshotSchedule", "give the time zone in timeZone, not in schedule", cron, {
    ...cron,
    schedule: "TZ=UTC 0 * * * *",
  }),
  rule(
    "SnapshotSchedule",
    "timeZone must be a name of the IANA time zone database",
    { ...cron, timeZone: "UTC" },
    { ...cron, timeZone: "Local" },
  ),
  rule(
    "SnapshotSchedule",
    "retention needs age, count, or both",
    { ...schedule, retention: { count: 1 } },
    { ...schedule, retention: {} },
  ),
  rule(
    "SnapshotSchedule",
    "retention.age must be between 1s and 876000h",
    { ...cron, retention: { age: "876000h" } },
    { ...cron, retention: { age: "876001h" } },
  ),
  rule("SnapshotSchedule", "jitter must be at most 24h", { ...cron, jitter: "24h" }, { ...cron, jitter: "24h1s" }),
  names("SnapshotSchedule", "the name of a SnapshotSchedule must be at most 63 characters", schedule, long, `${long}n`),

  change(
    "VolumeMigration",
    "volume is immutable",
    { volume, policy },
    { volume, policy: { ...policy, locations: ["west", "oslo"] } },
    { volume: { ...volume, uid: "u2" }, policy },
  ),
  rule(
    "VolumeMigration",
    "an enabled policy needs a schedule and at least one location",
    { volume, policy: { enabled: false, locations: [] } },
    { volume, policy: { ...policy, locations: [] } },
  ),
  rule(
    "VolumeMigration",
    "an enabled policy needs a schedule and at least one location",
    { volume, policy },
    { volume, policy: { enabled: true, locations: ["west"] } },
  ),
  rule(
    "VolumeMigration",
    "a dry run is not enabled",
    { volume, policy: { ...policy, enabled: false, dryRun: true } },
    { volume, policy: { ...policy, dryRun: true } },
  ),
  names("VolumeMigration", "a VolumeMigration has the name of its volume", { volume, policy }, "x", "y"),

  change("MigrationJob", "volumeName is immutable", job, { ...job, suspend: true }, { ...job, volumeName: "pv2" }),
  change("MigrationJob", "location is immutable", job, { ...job, cancel: true }, { ...job, location: "oslo" }),
  change("MigrationJob", "toSnapshot is immutable; create another MigrationJob", job, job, {
    ...job,
    toSnapshot: "s1",
  }),
  change(
    "MigrationJob",
    "toSnapshot is immutable; create a MigrationJob for another snapshot",
    { ...job, toSnapshot: "s1" },
    { ...job, toSnapshot: "s1", suspend: true },
    { ...job, toSnapshot: "s2" },
  ),
  change(
    "MigrationJob",
    "dryRun is immutable; create another MigrationJob",
    { ...job, dryRun: true },
    { ...job, dryRun: true, suspend: false },
    job,
  ),
  change(
    "MigrationJob",
    "dryRun is immutable; create a MigrationJob that differs in it",
    { ...job, dryRun: true },
    { ...job, dryRun: true, cancel: true },
    { ...job, dryRun: false },
  ),
  change(
    "MigrationJob",
    "activeDeadlineSeconds cannot be added or removed",
    job,
    { ...job, suspend: true },
    { ...job, activeDeadlineSeconds: 60 },
  ),
  change(
    "MigrationJob",
    "activeDeadlineSeconds is immutable",
    { ...job, activeDeadlineSeconds: 60 },
    { ...job, activeDeadlineSeconds: 60, cancel: true },
    { ...job, activeDeadlineSeconds: 61 },
  ),
  change(
    "MigrationJob",
    "a cancelled job stays cancelled",
    { ...job, cancel: true },
    { ...job, cancel: true, suspend: true },
    { ...job, cancel: false },
  ),
  change("MigrationJob", "a cancelled job stays cancelled", { ...job, cancel: true }, { ...job, cancel: true }, job),

  rule("MigrationJob", "give exactly one of volumeName and group", job, { ...job, group }),
  rule("MigrationJob", "give exactly one of volumeName and group", groupJob, { location: "west" }),
  change("MigrationJob", "a job of a volume stays one", job, { ...job, suspend: true }, groupJob),
  change("MigrationJob", "a job of a volume stays one", groupJob, { ...groupJob, suspend: true }, job),
  change(
    "MigrationJob",
    "group is immutable",
    groupJob,
    { ...groupJob, cancel: true },
    { ...groupJob, group: { ...group, name: "other" } },
  ),
  change(
    "MigrationJob",
    "group is immutable",
    wholeGroupJob,
    { ...wholeGroupJob, cancel: true },
    { ...wholeGroupJob, group: { ...group, volumes: ["pv1"] } },
  ),
  rule("MigrationJob", "group.volumes goes with toSnapshot", wholeGroupJob, {
    ...groupJob,
    group: wholeGroupJob.group,
  }),
  names("MigrationJob", "the name of a MigrationJob must be at most 63 characters", job, long, `${long}n`),

  change(
    "MigrationSource",
    "clusterName is immutable",
    source,
    { ...source, pointsKept: 5 },
    { ...source, clusterName: "north" },
  ),
  rule("MigrationSource", "caBundle must hold PEM certificates", source, { ...source, caBundle: "east-ca" }),
  rule("MigrationSource", "caBundle must not hold a private key", source, {
    ...source,
    caBundle: `${pem}-----BEGIN EC PRIVATE KEY-----\n`,
  }),
  rule("MigrationSource", "pinned.keep must be at most pointsKept", pinning({ keep: 3 }), pinning({ keep: 4 })),
  rule(
    "MigrationSource",
    "pinned.keep must be at most pointsKept",
    { ...pinning({ keep: 9 }), pointsKept: 9 },
    { ...pinning({ keep: 2 }), pointsKept: 1 },
  ),
  rule(
    "MigrationSource",
    "pinned.name must contain {point} or {time}",
    pinning({ keep: 1, name: "{claim}-at-{time}" }),
    pinning({ keep: 1, name: "{claim}-{namespace}" }),
  ),
  names("MigrationSource", "the name of a MigrationSource must be at most 63 characters", source, long, `${long}n`),

  change(
    "MigratedVolume",
    "sourceClusterUid is immutable",
    migrated,
    { ...migrated, source: "east-2" },
    { ...migrated, sourceClusterUid: uid2 },
  ),
  change("MigratedVolume", "sourceVolume is immutable", migrated, migrated, { ...migrated, sourceVolume: "w" }),
  change("MigratedVolume", "volume is immutable", migrated, migrated, { ...migrated, volume: "n" }),
];

test("every rule has a message, its own within its kind, and a row of examples", () => {
  const covered = (each: Rule) => rows.some((row) => row.kind === each.kind && each.message.startsWith(row.message));
  expect(rules.filter((each) => !covered(each))).toEqual([]);
  expect(rules.length).toBeGreaterThan(30);
  expect(new Set(rules.map(({ kind, message }) => `${kind} ${message}`)).size).toBe(rules.length);
});

test("no row speaks of a rule that is not there", () => {
  const known = (row: Row) => rules.some((each) => row.kind === each.kind && each.message.startsWith(row.message));
  expect(rows.filter((row) => !known(row))).toEqual([]);
});

const plurals = new Map<string, string>(definitions.map(({ spec }) => [spec.names.kind, spec.names.plural]));

interface Answer {
  readonly status: number;
  readonly body: Json;
}

let plane: ControlPlane;

function send(method: string, path: string, body?: Json): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${plane.adminToken}`, "content-type": "application/json" };
    const options = { method, headers, ca: readFileSync(plane.caFile) };
    const asked = request(`${plane.server}/apis/longshore.dev/v1/${path}`, options, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.once("end", () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
    });
    asked.once("error", reject).end(body && JSON.stringify(body));
  });
}

function object(kind: string, name: string, spec: Json, metadata: Json = {}): Json {
  return { apiVersion: "longshore.dev/v1", kind, metadata: { name, ...metadata }, spec };
}

/** Creates what was before, then tries an example in its place; nothing that is tried is kept. */
async function attempt({ kind, before }: Row, { spec, name = "x" }: Example): Promise<Answer> {
  const path = plurals.get(kind) ?? "";
  if (before === undefined) return send("POST", `${path}?dryRun=All&fieldValidation=Strict`, object(kind, name, spec));
  let { body } = await send("POST", path, object(kind, name, before.spec));
  if (before.status) ({ body } = await send("PUT", `${path}/${name}/status`, { ...body, status: before.status }));
  const { resourceVersion } = body.metadata as { resourceVersion: string };
  const next = { ...object(kind, name, spec, { resourceVersion }), status: before.status };
  const answer = await send("PUT", `${path}/${name}?dryRun=All&fieldValidation=Strict`, next);
  await send("DELETE", `${path}/${name}`);
  return answer;
}

describe("on a real API server", () => {
  beforeAll(async () => {
    if (missing("controlplane") !== undefined) return;
    plane = await startControlPlane({ name: "crds" });
    await plane.kubectl(["apply", "--server-side", "-f", folder]);
    await areEstablished(plane, "-f", folder);
  }, 300_000);
  afterAll(() => plane?.stop());

  for (const row of rows) {
    needs("controlplane")(
      `${row.kind}: ${row.message}, for ${JSON.stringify(row.refused.spec).slice(0, 200)}`,
      async () => {
        const accepted = await attempt(row, row.accepted);
        expect([accepted.status, accepted.body.message]).toEqual([row.before ? 200 : 201, undefined]);
        const refused = await attempt(row, row.refused);
        expect([refused.status, refused.body.message]).toEqual([422, expect.stringContaining(row.message)]);
      },
    );
  }

  needs("controlplane")(
    "an object applied as a GitOps tool does it stays as it was written, with no difference seen",
    async () => {
      const spec = { ...cron, jitter: "90s", retention: { age: "720h", count: 3 }, timeZone: "Europe/Berlin" };
      const input = JSON.stringify(object("SnapshotSchedule", "gitops", spec));
      const options = ["--server-side", "--field-manager=argocd-controller", "-f", "-"];
      await plane.kubectl(["apply", ...options], { input });
      await plane.kubectl(["diff", ...options], { input });
      const { body } = await send("GET", "snapshotschedules/gitops");
      expect(body.spec).toEqual(spec);
    },
  );

  needs("controlplane")("every kind is listed under the category and its short name, with its columns", async () => {
    for (const { spec } of definitions) {
      const { stdout } = await plane.kubectl(["get", spec.names.shortNames[0], "-o", "name"]);
      expect(stdout).not.toContain("error");
    }
    const { stdout } = await plane.kubectl(["get", "longshore", "-o", "wide"]);
    expect(stdout).toContain("RETENTION");
  });
});
