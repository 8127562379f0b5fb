import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "@jest/globals";
import { annotation, conditionType, eventReason, finalizer, label, metadataKey, reason } from "./names.ts";

function textOf(folder: string): string {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
    .map((file) => readFileSync(join(folder, file), "utf8"))
    .join("\n");
}

test("every name is written or read by something: one that is not would be looked for in vain", () => {
  const sources = join(import.meta.dirname, "..");
  const used = new Set(textOf(sources).match(/\b\w+\.\w+\b/g));
  // Decisions do not import these names, and spell out the reasons that are theirs.
  const decisions = textOf(join(sources, "domain"));
  const tables = { annotation, conditionType, eventReason, finalizer, label, metadataKey, reason };
  const unused = Object.entries(tables).flatMap(([table, names]) =>
    Object.entries(names)
      .filter(([key, name]) => !used.has(`${table}.${key}`) && !decisions.includes(`"${name}"`))
      .map(([key]) => `${table}.${key}`),
  );
  expect(unused).toEqual([]);
});
