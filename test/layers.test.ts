import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { breaches, mayImport, type SourceFile } from "../tools/layers.ts";

const root = join(import.meta.dirname, "..");

function tree(): SourceFile[] {
  return ["src", "test", "tools", "bench"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => `${folder}/${file}`)
      .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") })),
  );
}

test("the tree keeps the rules", () => {
  const files = tree();
  expect(files.length).toBeGreaterThan(20);
  expect(breaches(files)).toEqual([]);
});

test("folders import in one direction only", () => {
  const reaches = (from: string, seen: string[] = []): string[] =>
    (mayImport[from] ?? []).flatMap((to) => (seen.includes(to) ? [to] : [to, ...reaches(to, [...seen, to])]));
  const circular = Object.keys(mayImport).filter((folder) => reaches(folder).includes(folder));
  expect(circular).toEqual([]);
});

describe("the checker refuses", () => {
  test.each([
    // what is wrong, where, source, part of the message
    [
      "an import from a folder above",
      "src/domain/a.ts",
      'import { b } from "../engine/b.ts";',
      "domain may not import engine",
    ],
    [
      "a neighbour that is not named",
      "src/storage/a.ts",
      'import { b } from "../wire/b.ts";',
      "storage may not import wire",
    ],
    [
      "an import of types alone",
      "src/base/a.ts",
      'import type { B } from "../domain/b.ts";',
      "base may not import domain",
    ],
    ["an import for its effect", "src/base/a.ts", 'import "../kube/b.ts";', "base may not import kube"],
    ["a dynamic import", "src/wire/a.ts", 'const b = await import("../agent/b.ts");', "wire may not import agent"],
    ["a computed import", "src/wire/a.ts", "const b = await import(name);", "a computed module has no owner"],
    [
      "an import of many lines",
      "src/api/a.ts",
      'import {\n  b,\n  type C as D,\n} from "../base/b.ts";',
      "api may not import base",
    ],
    ["an import of a namespace", "src/api/a.ts", 'import * as b from "../base/b.ts";', "api may not import base"],
    ["importing bin", "src/agent/a.ts", 'import { b } from "../bin/b.ts";', "agent may not import bin"],
    ["importing tests", "src/agent/a.ts", 'import { b } from "../../test/fakes/b.ts";', "outside src/"],
    ["a library elsewhere", "src/agent/a.ts", 'import { open } from "koffi";', "koffi is imported in native only"],
    [
      "a part of a library elsewhere",
      "src/agent/a.ts",
      'import { V } from "typebox/value";',
      "typebox is imported in wire only",
    ],
    [
      "a scoped library elsewhere",
      "src/wire/a.ts",
      'import x from "@kubernetes/client-node";',
      "imported in kube only",
    ],
    [
      "a library by require",
      "src/kube/a.ts",
      'const f = createRequire(import.meta.url)("fastify");',
      "imported in agent only",
    ],
    ["a library by a require of its own", "src/kube/a.ts", 'const a = require("fastify");', "imported in agent only"],
    ["require outside kube", "src/wire/a.ts", "const require = createRequire(import.meta.url);", "belongs in kube"],
    ["a library nobody owns", "src/wire/a.ts", 'import x from "left-pad";', "left-pad has no owner"],
    ["SQLite elsewhere", "src/agent/a.ts", 'import { DatabaseSync } from "node:sqlite";', "imported in engine only"],
    [
      "host commands elsewhere",
      "src/agent/a.ts",
      'import { spawn } from "node:child_process";',
      "imported in storage and host only",
    ],
    ["the clock", "src/engine/a.ts", "const now = Date.now();", "Date.now belongs in base"],
    ["the clock by construction", "src/engine/a.ts", "const now = new Date();", "newDate() belongs in base"],
    ["timers", "src/engine/a.ts", "setTimeout(f, 5);", "setTimeout( belongs in base"],
    ["timers of a signal", "src/engine/a.ts", "fetch(url, { signal: AbortSignal.timeout(5) });", "belongs in base"],
    ["chance", "src/engine/a.ts", "Math.random();", "Math.random belongs in base"],
    ["chance through its module", "src/engine/a.ts", "const id = crypto.randomUUID();", "randomUUID( belongs in base"],
    ["the environment", "src/agent/a.ts", "const home = process.env.HOME;", "process.env belongs in bin"],
    ["a folder without a row", "src/stuff/a.ts", "", "has a row for"],
    ["a file beside the folders", "src/a.ts", "", "has a row for"],
    ["a name that says nothing", "src/base/utils.ts", "", '"utils" says nothing'],
    ["a folder that says nothing", "test/common/a.ts", "", '"common" says nothing'],
    ["a default export", "test/fakes/a.ts", "export default function f() {}", "a default export"],
    ["a barrel by its name", "src/domain/index.ts", "", "a barrel file"],
    ["a barrel of everything", "src/domain/a.ts", 'export * from "./b.ts";', "a barrel"],
    ["everything of another file", "src/domain/a.ts", 'export const a = 1; export * from "./b.ts";', "a barrel"],
    ["a barrel of names", "src/domain/a.ts", 'export { b, type C } from "./b.ts";', "a barrel"],
  ])("%s", (_, path, text, message) => {
    expect(breaches([{ path, text }]).join("\n")).toContain(message);
  });
});

describe("the checker allows", () => {
  test.each([
    // what is right, where, source
    ["what the table allows", "src/engine/a.ts", 'import { b } from "../storage/b.ts"; import { c } from "./c.ts";'],
    [
      "libraries in their folders",
      "src/storage/a.ts",
      'import { statfs } from "node:fs"; import { spawn } from "node:child_process";',
    ],
    ["a library in the second of its folders", "src/host/a.ts", 'import { spawn } from "node:child_process";'],
    ["a library in its folder", "src/native/a.ts", 'import koffi from "koffi";'],
    ["any other part of Node", "src/wire/a.ts", 'import { join } from "node:path";'],
    ["tests beside their source to import more", "src/domain/a.test.ts", 'import fc from "fast-check"; Date.now();'],
    [
      "imports in comments and strings",
      "src/base/a.ts",
      '// import "../kube/b.ts"\nconst a = `import "../kube/b.ts"`;',
    ],
    ["a date from a number", "src/domain/a.ts", "new Date(ms).toISOString();"],
    ["a clock that is a parameter", "src/domain/a.ts", "clock.nowMs(); timer.setTimeout(5);"],
    ["the clock and dice in base", "src/base/a.ts", "Date.now(); setTimeout(f, 1); crypto.randomBytes(4);"],
    ["the environment in bin", "src/bin/a.ts", "process.env.HOME;"],
    [
      "a type of a library beside what is ours",
      "src/kube/a.ts",
      'export const a = 1; export type { B } from "@dot-i/k8s-operator";',
    ],
    ["a method named require", "src/engine/a.ts", 'class A { require(b: B) { return fail("NotFound"); } }'],
    ["an export that has a property from", "src/domain/a.ts", 'export const range = { from: "a" };'],
    ["a word inside a longer name", "src/domain/utilization.ts", "export const utilsTotal = 1;"],
  ])("%s", (_, path, text) => {
    expect(breaches([{ path, text }])).toEqual([]);
  });
});

test("a breach is told with its file and line", () => {
  const text = '// one\nimport { a } from "./a.ts";\nimport { b } from "../bin/b.ts";\n';
  expect(breaches([{ path: "src/base/c.ts", text }])).toEqual([
    "src/base/c.ts:3: base may not import bin; see the table in CONTRIBUTING.md",
  ]);
});
