import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { classParameterProblems, type PolicyFacts, resolvePolicy } from "./policy.ts";

const classParameters = { migrationEnable: "true", migrationLocations: "berlin, oslo", schedulePolicy: "hourly" };

/** Annotations, with the prefix added. */
function annotated(settings: Record<string, string>): { annotations: Record<string, string> } {
  const entries = Object.entries(settings).map(([name, value]) => [`longshore.dev/${name}`, value]);
  return { annotations: Object.fromEntries(entries) };
}

interface Said {
  readonly parameters?: Record<string, string>;
  readonly class?: Record<string, string>;
  readonly volume?: Record<string, string>;
  readonly claim?: Record<string, string>;
}

function facts(said: Said): PolicyFacts {
  return {
    class: { name: "fast", parameters: said.parameters ?? classParameters, ...annotated(said.class ?? {}) },
    volume: { name: "pv1", ...annotated(said.volume ?? {}) },
    claim: { namespace: "shop", name: "db", ...annotated(said.claim ?? {}) },
  };
}

function show(policyFacts: PolicyFacts): string {
  const resolved = resolvePolicy(policyFacts);
  if (resolved.kind !== "policy") return resolved.kind;
  const { isEnabled, locations, schedule } = resolved.policy;
  const refused = resolved.refusals.length > 0 ? ", refused" : "";
  return `${isEnabled ? "on" : "off"} ${locations.join("+")} ${schedule}${refused}`;
}

test.each<[string, Said, string]>([
  ["parameters of the class", {}, "on berlin+oslo hourly"],
  ["a class that says nothing", { parameters: {} }, "unmentioned"],
  ["parameters of others only", { parameters: { type: "ssd" } }, "unmentioned"],
  ["a class switched off", { parameters: { ...classParameters, migrationEnable: "false" } }, "off berlin+oslo hourly"],
  ["locations without enabling", { parameters: { migrationLocations: "berlin" } }, "off berlin undefined"],
  ["annotations of the class win over parameters", { class: { schedulePolicy: "daily" } }, "on berlin+oslo daily"],
  ["annotations alone", { parameters: {}, class: classParameters }, "on berlin+oslo hourly"],
  [
    "the volume wins over its class",
    { class: { schedulePolicy: "daily" }, volume: { schedulePolicy: "weekly" } },
    "on berlin+oslo weekly",
  ],
  ["the volume enables itself", { parameters: {}, volume: classParameters }, "on berlin+oslo hourly"],
  ["the volume switches itself off", { volume: { migrationEnable: "false" } }, "off berlin+oslo hourly"],
  [
    "a location named twice counts once",
    { volume: { migrationLocations: "oslo,berlin,oslo," } },
    "on oslo+berlin hourly",
  ],
  ["a claim may not opt out by itself", { claim: { migrationEnable: "false" } }, "on berlin+oslo hourly, refused"],
  [
    "a claim opts out where its class lets it",
    { class: { allowOptOut: "true" }, claim: { migrationEnable: "false" } },
    "off berlin+oslo hourly",
  ],
  [
    "and the parameter allows it as well",
    { parameters: { ...classParameters, allowOptOut: "true" }, claim: { migrationEnable: "false" } },
    "off berlin+oslo hourly",
  ],
  [
    "a claim never opts in",
    {
      parameters: { ...classParameters, migrationEnable: "false", allowOptOut: "true" },
      claim: { migrationEnable: "true" },
    },
    "off berlin+oslo hourly, refused",
  ],
  [
    "a claim may say what holds anyway",
    { claim: { migrationEnable: "true", schedulePolicy: "hourly" } },
    "on berlin+oslo hourly",
  ],
  [
    "a claim picks an allowed schedule",
    { class: { allowedSchedules: "daily, weekly" }, claim: { schedulePolicy: "weekly" } },
    "on berlin+oslo weekly",
  ],
  [
    "a claim may not pick another",
    { class: { allowedSchedules: "daily" }, claim: { schedulePolicy: "weekly" } },
    "on berlin+oslo hourly, refused",
  ],
  ["a claim never picks locations", { claim: { migrationLocations: "paris" } }, "on berlin+oslo hourly, refused"],
  ["a claim of a class that says nothing", { parameters: {}, claim: classParameters }, "unmentioned"],
  [
    "allowances of a claim are none",
    { claim: { allowOptOut: "true", migrationEnable: "false" } },
    "on berlin+oslo hourly, refused",
  ],
])("%s", (_, said, expected) => {
  expect(show(facts(said))).toBe(expected);
});

test.each<[string, Said, string]>([
  [
    "migrationEnable",
    { parameters: { ...classParameters, migrationEnable: "yes" } },
    "migrationEnable, parameter of StorageClass fast",
  ],
  [
    "no locations",
    { parameters: { migrationEnable: "true", schedulePolicy: "hourly" } },
    "migrationLocations is missing",
  ],
  ["empty locations", { parameters: { ...classParameters, migrationLocations: " , " } }, "migrationLocations is empty"],
  [
    "no schedule",
    { parameters: { migrationEnable: "true", migrationLocations: "berlin" } },
    "schedulePolicy is missing",
  ],
  ["a location's name", { volume: { migrationLocations: "Berlin" } }, '"Berlin" cannot be the name'],
  [
    "a schedule's name",
    { volume: { schedulePolicy: "every hour" } },
    "longshore.dev/schedulePolicy, annotation of PersistentVolume pv1",
  ],
  ["allowOptOut", { class: { allowOptOut: "maybe" } }, "allowOptOut of StorageClass fast"],
  ["dry-run", { class: { "dry-run": "yes" } }, "longshore.dev/dry-run, annotation of StorageClass fast"],
  ["a volume's dry-run", { class: { "dry-run": "true" }, volume: { "dry-run": "" } }, "PersistentVolume pv1"],
  [
    "too many locations",
    { volume: { migrationLocations: Array.from({ length: 17 }, (_, at) => `l${at}`).join() } },
    "more than 16",
  ],
])("what is wrong with %s is said by name", (_, said, message) => {
  expect(resolvePolicy(facts(said))).toEqual({
    kind: "invalid",
    problems: expect.arrayContaining([expect.stringContaining(message)]),
  });
});

test("what a claim gets wrong is refused by name, and stops nothing", () => {
  const resolved = resolvePolicy(facts({ class: { allowOptOut: "true" }, claim: { migrationEnable: "no" } }));
  expect(resolved.kind === "policy" && [resolved.policy.isEnabled, resolved.refusals]).toEqual([
    true,
    [expect.stringContaining("PersistentVolumeClaim shop/db")],
  ]);
});

test("every setting says where it comes from", () => {
  const resolved = resolvePolicy(facts({ class: { schedulePolicy: "daily" }, volume: { migrationLocations: "oslo" } }));
  expect(resolved.kind === "policy" && resolved.policy.origins).toEqual({
    migrationEnable: "migrationEnable, parameter of StorageClass fast",
    schedulePolicy: "longshore.dev/schedulePolicy, annotation of StorageClass fast",
    migrationLocations: "longshore.dev/migrationLocations, annotation of PersistentVolume pv1",
  });
});

test.each<[string, Said, boolean]>([
  ["its class", { class: { "dry-run": "true" } }, true],
  ["itself", { volume: { "dry-run": "true" } }, true],
  ["itself, whatever its class says", { class: { "dry-run": "true" }, volume: { "dry-run": "false" } }, false],
  ["nobody", {}, false],
  ["its claim, which may not", { claim: { "dry-run": "true" } }, false],
])("whether a volume is only looked at says %s", (_, said, isDryRun) => {
  const resolved = resolvePolicy(facts(said));
  expect(resolved.kind === "policy" && [resolved.policy.isEnabled, resolved.policy.isDryRun]).toEqual([true, isDryRun]);
});

test("a volume without class and claim is resolved from its annotations", () => {
  expect(show({ volume: { name: "pv1", ...annotated(classParameters) } })).toBe("on berlin+oslo hourly");
  expect(show({ volume: { name: "pv1" } })).toBe("unmentioned");
});

test("whatever a claim says, it reaches no location and no schedule that its class does not allow", () => {
  const words = fc.constantFrom("true", "false", "hourly", "daily", "weekly", "paris", "");
  const said = fc.dictionary(
    fc.constantFrom("migrationEnable", "migrationLocations", "schedulePolicy", "allowOptOut", "allowedSchedules"),
    words,
  );
  fc.assert(
    fc.property(said, (claim) => {
      const resolved = resolvePolicy(facts({ class: { allowedSchedules: "daily" }, claim }));
      if (resolved.kind !== "policy") return;
      expect(resolved.policy.locations).toEqual(["berlin", "oslo"]);
      expect(["hourly", "daily"]).toContain(resolved.policy.schedule);
      expect(resolved.policy.isEnabled).toBe(true);
    }),
  );
});

test.each<[Record<string, string>, string[]]>([
  [{}, []],
  [{ type: "ssd" }, []],
  [classParameters, []],
  // The rest may be annotations of the class.
  [{ migrationEnable: "true" }, []],
  [{ migrationEnable: "false", allowOptOut: "true", allowedSchedules: "hourly, daily" }, []],
  [{ migrationEnable: "yes" }, ["migrationEnable"]],
  [{ migrationLocations: "berlin,Oslo Fjord" }, ["migrationLocations"]],
  [{ schedulePolicy: "every/hour" }, ["schedulePolicy"]],
  [{ allowOptOut: "maybe" }, ["allowOptOut"]],
  [{ allowedSchedules: "hourly,_" }, ["allowedSchedules"]],
  [{ migrationEnable: "1", schedulePolicy: "a b" }, ["migrationEnable", "schedulePolicy"]],
])("the parameters %j of a class are wrong in %j", (parameters, names) => {
  const problems = classParameterProblems(parameters);
  expect(problems.map((problem) => problem.split(",")[0])).toEqual(names);
});
