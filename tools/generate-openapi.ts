// Writes docs/openapi.json from the routes and schemas of the agent's API; with `--check`, says whether it is current.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openApiDocument } from "../src/agent/openapi.ts";

const root = join(import.meta.dirname, "..");
const file = join(root, "docs", "openapi.json");

/** The document as it is committed. */
export function openApiText(): string {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  return `${JSON.stringify(openApiDocument(version), undefined, 2)}\n`;
}

if (import.meta.main) {
  if (!process.argv.includes("--check")) writeFileSync(file, openApiText());
  else if (readFileSync(file, "utf8") !== openApiText()) {
    process.stderr.write("docs/openapi.json is out of date; run: make generate\n");
    process.exitCode = 1;
  }
}
