// What is to happen with a volume, from what its class, itself and its claim say. The nearer one wins: the claim (where
// the class allows it), then the volume's annotations, then the class's annotations, then the class's parameters.

export const settingNames = ["migrationEnable", "migrationLocations", "schedulePolicy"] as const;
export type SettingName = (typeof settingNames)[number];

/** All that a class may say of its volumes by parameters: the settings, and what claims may decide. */
export const classParameterNames = [...settingNames, "allowOptOut", "allowedSchedules"] as const;

/** On classes, volumes and claims alike, settings are annotations of this prefix. */
export const annotationPrefix = "longshore.dev/";

type Texts = Readonly<Record<string, string>>;

export interface PolicyFacts {
  readonly class?: { readonly name: string; readonly parameters?: Texts; readonly annotations?: Texts };
  readonly volume: { readonly name: string; readonly annotations?: Texts };
  readonly claim?: { readonly namespace: string; readonly name: string; readonly annotations?: Texts };
}

export interface Policy {
  readonly isEnabled: boolean;
  /** What is enabled shall only be looked at, where it is not in force yet. */
  readonly isDryRun: boolean;
  /** Without repetitions, in the order given. */
  readonly locations: readonly string[];
  readonly schedule?: string;
  /** Where each setting was found, for people. */
  readonly origins: Readonly<Partial<Record<SettingName, string>>>;
}

/** `refusals`: what the claim asked for and may not; the policy holds without it. */
export type ResolvedPolicy =
  | { readonly kind: "unmentioned" }
  | { readonly kind: "policy"; readonly policy: Policy; readonly refusals: readonly string[] }
  | { readonly kind: "invalid"; readonly problems: readonly string[] };

interface Setting {
  readonly value: string;
  readonly origin: string;
}

const locationsMax = 16;
const nameForm = /^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$/;

/** Resolves the policy of one volume. Problems name the setting, where it was found, and what to write instead. */
export function resolvePolicy(facts: PolicyFacts): ResolvedPolicy {
  const found = new Map<string, Setting>();
  for (const source of sourcesOf(facts)) for (const [name, setting] of source) found.set(name, setting);
  const problems: string[] = [];
  const enable = readBoolean(found, "migrationEnable", problems);
  if (![...settingNames].some((name) => found.has(name))) return { kind: "unmentioned" };
  const allowances = readAllowances(facts, problems);
  const claim = claimWishes(facts, { enable, schedule: found.get("schedulePolicy")?.value, ...allowances });
  for (const [name, setting] of claim.granted) found.set(name, setting);
  const isEnabled = (claim.granted.has("migrationEnable") ? false : enable) ?? false;
  const isDryRun = readDryRun(facts, problems);
  const locations = readLocations(found, isEnabled, problems);
  const schedule = readSchedule(found, isEnabled, problems);
  if (problems.length > 0) return { kind: "invalid", problems };
  const origins = originsOf(found);
  const policy = { isEnabled, isDryRun, locations, ...(schedule !== undefined && { schedule }), origins };
  return { kind: "policy", policy, refusals: claim.refusals };
}

function originsOf(found: ReadonlyMap<string, Setting>): Policy["origins"] {
  const origins: Partial<Record<SettingName, string>> = {};
  for (const name of settingNames) {
    const origin = found.get(name)?.origin;
    if (origin !== undefined) origins[name] = origin;
  }
  return origins;
}

/** The sources that need no permission, the farthest first. */
function sourcesOf({ class: storageClass, volume }: PolicyFacts): ReadonlyMap<string, Setting>[] {
  const ofVolume = settingsIn(volume.annotations, annotationPrefix, `annotation of PersistentVolume ${volume.name}`);
  if (storageClass === undefined) return [ofVolume];
  const { name, parameters, annotations } = storageClass;
  return [
    settingsIn(parameters, "", `parameter of StorageClass ${name}`),
    settingsIn(annotations, annotationPrefix, `annotation of StorageClass ${name}`),
    ofVolume,
  ];
}

function settingsIn(texts: Texts | undefined, prefix: string, origin: string): Map<string, Setting> {
  const settings = new Map<string, Setting>();
  for (const name of settingNames) {
    const value = texts?.[prefix + name];
    if (value !== undefined) settings.set(name, { value: value.trim(), origin: `${prefix}${name}, ${origin}` });
  }
  return settings;
}

function readBoolean(found: ReadonlyMap<string, Setting>, name: string, problems: string[]): boolean | undefined {
  const setting = found.get(name);
  if (setting === undefined) return undefined;
  if (setting.value === "true") return true;
  if (setting.value !== "false") problems.push(`${setting.origin}: "${setting.value}" is neither "true" nor "false"`);
  return false;
}

const dryRunKey = `${annotationPrefix}dry-run`;

/** Said by annotation, of the volume or of its class; the volume's wins. Whoever may enable migration may look at it first. */
function readDryRun({ class: storageClass, volume }: PolicyFacts, problems: string[]): boolean {
  const own = volume.annotations?.[dryRunKey];
  const value = (own ?? storageClass?.annotations?.[dryRunKey] ?? "false").trim();
  if (value !== "true" && value !== "false") {
    const where = own === undefined ? `StorageClass ${storageClass?.name}` : `PersistentVolume ${volume.name}`;
    problems.push(`${dryRunKey}, annotation of ${where}: "${value}" is neither "true" nor "false"`);
  }
  return value === "true";
}

interface Allowances {
  readonly allowOptOut: boolean;
  readonly allowedSchedules: readonly string[];
}

/** What claims of the class may decide; the class alone says. */
function readAllowances({ class: storageClass }: PolicyFacts, problems: string[]): Allowances {
  const texts = (name: string) =>
    storageClass?.annotations?.[annotationPrefix + name] ?? storageClass?.parameters?.[name] ?? "";
  const optOut = texts("allowOptOut").trim();
  if (!["", "true", "false"].includes(optOut)) {
    problems.push(`allowOptOut of StorageClass ${storageClass?.name}: "${optOut}" is neither "true" nor "false"`);
  }
  return { allowOptOut: optOut === "true", allowedSchedules: splitList(texts("allowedSchedules")) };
}

interface Wishes {
  readonly granted: ReadonlyMap<string, Setting>;
  readonly refusals: readonly string[];
}

/** Sorts what the claim asks for into what its class allows and what it does not. Asking for what holds anyway is allowed. */
function claimWishes(
  { claim }: PolicyFacts,
  given: Allowances & { readonly enable: boolean | undefined; readonly schedule: string | undefined },
): Wishes {
  const granted = new Map<string, Setting>();
  const refusals: string[] = [];
  if (claim === undefined) return { granted, refusals };
  const origin = `annotation of PersistentVolumeClaim ${claim.namespace}/${claim.name}`;
  const wishes = settingsIn(claim.annotations, annotationPrefix, origin);
  // What a claim gets wrong is refused like what it may not: a tenant's slip must not stop what the class asks for.
  const problems: string[] = [];
  const enable = readBoolean(wishes, "migrationEnable", problems);
  refusals.push(...problems);
  const optOut = wishes.get("migrationEnable");
  if (optOut !== undefined && problems.length === 0 && enable !== (given.enable ?? false)) {
    if (enable === true) refusals.push(`${optOut.origin}: a claim cannot enable migration; its class or volume must`);
    else if (given.allowOptOut) granted.set("migrationEnable", optOut);
    else refusals.push(`${optOut.origin}: the class does not let claims opt out (allowOptOut)`);
  }
  const schedule = wishes.get("schedulePolicy");
  if (schedule !== undefined && schedule.value !== given.schedule) {
    if (given.allowedSchedules.includes(schedule.value)) granted.set("schedulePolicy", schedule);
    else refusals.push(`${schedule.origin}: the class does not allow "${schedule.value}" (allowedSchedules)`);
  }
  const locations = wishes.get("migrationLocations");
  if (locations !== undefined) refusals.push(`${locations.origin}: a claim cannot choose locations`);
  return { granted, refusals };
}

function readLocations(found: ReadonlyMap<string, Setting>, isEnabled: boolean, problems: string[]): readonly string[] {
  const setting = found.get("migrationLocations");
  const names = [...new Set(splitList(setting?.value ?? ""))];
  if (isEnabled && names.length === 0) {
    problems.push(
      `migrationLocations is ${setting ? `empty (${setting.origin})` : "missing"}: name at least one MigrationLocation`,
    );
  }
  const wrong = names.find((name) => !nameForm.test(name));
  if (wrong !== undefined) problems.push(`${setting?.origin}: "${wrong}" cannot be the name of a MigrationLocation`);
  if (names.length > locationsMax) problems.push(`${setting?.origin}: more than ${locationsMax} locations`);
  return names;
}

function readSchedule(found: ReadonlyMap<string, Setting>, isEnabled: boolean, problems: string[]): string | undefined {
  const setting = found.get("schedulePolicy");
  if (setting === undefined || setting.value === "") {
    if (isEnabled) problems.push("schedulePolicy is missing: name a SnapshotSchedule");
    return undefined;
  }
  if (nameForm.test(setting.value)) return setting.value;
  problems.push(`${setting.origin}: "${setting.value}" cannot be the name of a SnapshotSchedule`);
  return undefined;
}

function splitList(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

/**
 * What is wrong with the form of a class's parameters, naming each. That something is missing is no problem of theirs, for
 * annotations may say it; nor is it whether what they name exists.
 */
export function classParameterProblems(parameters: Texts): string[] {
  const origin = "parameter of the StorageClass";
  const problems: string[] = [];
  const found = settingsIn(parameters, "", origin);
  readBoolean(found, "migrationEnable", problems);
  readLocations(found, false, problems);
  readSchedule(found, false, problems);
  const optOut = (parameters.allowOptOut ?? "").trim();
  if (!["", "true", "false"].includes(optOut)) {
    problems.push(`allowOptOut, ${origin}: "${optOut}" is neither "true" nor "false"`);
  }
  const wrong = splitList(parameters.allowedSchedules ?? "").find((name) => !nameForm.test(name));
  if (wrong !== undefined) {
    problems.push(`allowedSchedules, ${origin}: "${wrong}" cannot be the name of a SnapshotSchedule`);
  }
  return problems;
}
