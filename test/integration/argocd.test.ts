// The health checks for Argo CD in manifests/argocd, in the layout of its own repository: each case of each health_test.yaml is
// run by a Lua interpreter as Argo CD runs it, with the object as the global `obj`; and they speak of what the operator writes.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { parse } from "yaml";
import { conditionType, group, reason, version } from "../../src/api/names.ts";
import { needs } from "../needs.ts";

const root = join(import.meta.dirname, "../..");
const manifests = join(root, "manifests/argocd");
const customizations = join(manifests, "resource_customizations", group);

const read = (...path: string[]) => readFileSync(join(...path), "utf8");

const kinds = readdirSync(customizations).sort();
const scriptOf = (kind: string) => read(customizations, kind, "health.lua");

interface Case {
  readonly kind: string;
  readonly inputPath: string;
  readonly healthStatus: { readonly status: string; readonly message: string };
}

const cases: readonly Case[] = kinds.flatMap((kind) => {
  const { tests } = parse(read(customizations, kind, "health_test.yaml")) as { tests: Omit<Case, "kind">[] };
  return tests.map((each) => ({ kind, ...each }));
});

/** A value of YAML as a Lua expression. */
function luaOf(value: unknown): string {
  if (value === null || value === undefined) return "nil";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value === "string") return luaText(value);
  if (Array.isArray(value)) return `{${value.map(luaOf).join(", ")}}`;
  return `{${Object.entries(value).map(luaField).join(", ")}}`;
}

function luaField([name, value]: [string, unknown]): string {
  return `[${luaText(name)}] = ${luaOf(value)}`;
}

/** What is not printed as it is, byte by byte: Lua's escapes are decimal. */
function luaText(text: string): string {
  const escaped = [...Buffer.from(text)].map((byte) => {
    const isPlain = byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c;
    return isPlain ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, "0")}`;
  });
  return `"${escaped.join("")}"`;
}

/** What a script finds of an object: on the first line its status, then its message. */
function healthOf(script: string, object: unknown): { status: string; message: string } {
  const program = [
    `obj = ${luaOf(object)}`,
    `local health = (function()\n${script}\nend)()`,
    'io.write(health.status, "\\n", health.message or "")',
  ].join("\n");
  const { status, stdout, stderr, error } = spawnSync("lua5.4", ["-"], { input: program, encoding: "utf8" });
  if (status !== 0) throw error ?? new Error(`lua5.4 ended with ${status}: ${stderr}`);
  const [found = "", ...message] = stdout.split("\n");
  return { status: found, message: message.join("\n") };
}

describe("the health of each kind", () => {
  for (const { kind, inputPath, healthStatus } of cases) {
    needs("lua5.4")(`${kind} of ${inputPath} is ${healthStatus.status}`, () => {
      const object = parse(read(customizations, kind, inputPath)) as { kind: string; apiVersion: string };
      expect([object.kind, object.apiVersion]).toEqual([kind, `${group}/${version}`]);
      expect(healthOf(scriptOf(kind), object)).toEqual(healthStatus);
    });
  }
});

needs("lua5.4")("a text that is written for Lua is read as it was", () => {
  const message = 'a "quoted" \\ path, a tab\t, an umlaut ü and 012\n345';
  const object = { name: "x", list: [1, { text: message, none: null, yes: true }] };
  const script = "return { status = obj.name, message = obj.list[2].text }";
  expect(healthOf(script, object)).toEqual({ status: "x", message });
});

test("every kind has a health check, and every state and file of it a case", () => {
  const definitions = readdirSync(join(root, "crds")).filter((file) => file.endsWith(".yaml"));
  const all = definitions.map((file) => parse(read(root, "crds", file)) as { spec?: { names: { kind: string } } });
  expect(kinds).toEqual(all.flatMap(({ spec }) => spec?.names.kind ?? []).sort());
  for (const kind of kinds) {
    const own = cases.filter((each) => each.kind === kind);
    const files = readdirSync(join(customizations, kind, "testdata")).map((file) => `testdata/${file}`);
    expect(own.map(({ inputPath }) => inputPath).sort()).toEqual(files.sort());
    const written = scriptOf(kind).matchAll(/"(Healthy|Progressing|Degraded|Suspended)"/g);
    const states = new Set([...written].map(([, state]) => state));
    const tried = new Set(own.map(({ healthStatus }) => healthStatus.status));
    expect([...tried].sort()).toEqual([...states].sort());
  }
});

test("the scripts speak of conditions and reasons that the operator writes", () => {
  const known = new Set<string>([
    ...Object.values(conditionType),
    ...Object.values(reason),
    ...["True", "False", "Healthy", "Progressing", "Degraded", "Suspended"],
  ]);
  for (const kind of kinds) {
    const script = scriptOf(kind);
    const quoted = [...script.matchAll(/"([A-Z]\w+)"/g)].map(([, word]) => word ?? "");
    const keys = [...script.matchAll(/\b([A-Z]\w+) = true/g), ...script.matchAll(/found\.([A-Z]\w+)/g)];
    const words = [...quoted, ...keys.map(([, word]) => word ?? "")];
    expect(words.filter((word) => !known.has(word))).toEqual([]);
    expect(words.length).toBeGreaterThan(3);
  }
});

test("the patch of Argo CD's ConfigMap has the same scripts", () => {
  const { data } = parse(read(manifests, "argocd-cm.yaml")) as { data: Record<string, string> };
  const expected = kinds.map((kind) => [`resource.customizations.health.${group}_${kind}`, scriptOf(kind)]);
  expect(data).toEqual(Object.fromEntries(expected));
});

test("the example Application applies server-side, as the operator expects of those that share its objects", () => {
  const application: unknown = parse(read(manifests, "application.yaml"));
  const option = "ServerSideApply=true";
  expect(application).toMatchObject({ kind: "Application", spec: { syncPolicy: { syncOptions: [option] } } });
});
