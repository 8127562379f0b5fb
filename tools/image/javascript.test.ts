import {
  chmodSync,
  existsSync,
  globSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, test } from "@jest/globals";
import { javaScriptOf, turnIntoJavaScript } from "./javascript.ts";

const root = join(import.meta.dirname, "../..");

test("the types go, and every word stays where it was", () => {
  const source = 'import { type A, b } from "./b.ts";\nexport const c: A = b(new URL("./d.ts", import.meta.url));\n';
  expect(javaScriptOf(source).replaceAll(/ +/g, " ")).toBe(
    'import { b } from "./b.js";\nexport const c = b(new URL("./d.js", import.meta.url));\n',
  );
  expect(javaScriptOf(source).indexOf("new URL")).toBe(source.indexOf("new URL"));
});

test("a folder's modules change their names, and keep their modes; what is no module stays", async () => {
  const folder = mkdtempSync(join(tmpdir(), "longshore-javascript-"));
  try {
    writeFileSync(join(folder, "a.ts"), "#!/usr/bin/env node\nexport const a: number = 1;\n");
    chmodSync(join(folder, "a.ts"), 0o755);
    writeFileSync(join(folder, "b.proto"), 'import "c.ts";');
    await turnIntoJavaScript(folder);
    expect(readdirSync(folder).sort()).toEqual(["a.js", "b.proto"]);
    expect(statSync(join(folder, "a.js")).mode & 0o777).toBe(0o755);
    expect(readFileSync(join(folder, "a.js"), "utf8")).toMatch(/^#!\/usr\/bin\/env node\nexport const a +=/);
    expect(readFileSync(join(folder, "b.proto"), "utf8")).toBe('import "c.ts";');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("whatever ends in .ts in a text of ours names a module, from where it stands", () => {
  const files = globSync("src/**/*.ts", { cwd: root }).filter((file) => !file.endsWith(".test.ts"));
  const named = files.flatMap((file) =>
    [...readFileSync(join(root, file), "utf8").matchAll(/([^"]*\.ts)"/g)].map(([, path = ""]) => ({ file, path })),
  );
  expect(named.length).toBeGreaterThan(files.length);
  expect(named.filter(({ file, path }) => !existsSync(join(root, dirname(file), path)))).toEqual([]);
});
