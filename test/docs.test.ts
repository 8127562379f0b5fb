// What people read keeps up with the code: what the parts can say of themselves is explained, and links lead somewhere.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { conditionType, eventReason, reason } from "../src/api/names.ts";

const root = join(import.meta.dirname, "..");
const read = (path: string) => readFileSync(join(root, path), "utf8");
const filesIn = (folder: string, ending: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ending))
    .map((file) => join(folder, file));

describe("docs/observing.md names", () => {
  const page = read("docs/observing.md");
  const [conditions = "", events = "", metrics = ""] = page.split(/^## /m).slice(1);
  const named = (text: string) => new Set(Array.from(text.matchAll(/`([A-Za-z_]+)`/g), ([, name]) => name));
  const sources = filesIn("src", ".ts")
    .filter((file) => !file.endsWith(".test.ts") && file !== "src/api/names.ts")
    .map(read)
    .join("\n");
  const declared = Array.from(sources.matchAll(/["'](longshore_[a-z_]+)["']/g), ([, name]) => name);

  test("every reason of an Event", () => {
    expect(Object.values(eventReason).filter((name) => !named(events).has(name))).toEqual([]);
  });

  test("every condition and every reason of one that is written", () => {
    const written = (list: string, names: Readonly<Record<string, string>>) =>
      Object.entries(names).flatMap(([key, name]) =>
        new RegExp(`\\b${list}\\.${key}\\b`).test(sources) ? [name] : [],
      );
    const all = [...written("conditionType", conditionType), ...written("reason", reason)];
    expect(all.length).toBeGreaterThan(40);
    expect(all.filter((name) => !named(conditions).has(name))).toEqual([]);
  });

  test("every metric, and none that is not there", () => {
    expect(declared.length).toBeGreaterThan(25);
    expect(declared.filter((name) => !named(metrics).has(name))).toEqual([]);
    const told = Array.from(page.matchAll(/\blongshore_\w+/g), ([name]) => name);
    expect(told.filter((name) => !declared.includes(name))).toEqual([]);
  });
});

describe("links of the documentation", () => {
  const pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", ...filesIn("docs", ".md")];

  /** As GitHub makes it of a heading. */
  const anchorOf = (heading: string) =>
    heading
      .trim()
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-");

  const anchorsOf = (path: string) =>
    Array.from(read(path).matchAll(/^#+ (.+)$/gm), ([, heading = ""]) => anchorOf(heading));

  test.each(pages)("%s leads to files and headings that are there", (page) => {
    const links = Array.from(read(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)/g));
    const broken = links.filter(([, path = "", anchor]) => {
      const target = path === "" ? page : relative(root, join(root, dirname(page), path));
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && !anchorsOf(target).includes(anchor);
    });
    expect(broken.map(([link]) => link)).toEqual([]);
  });
});
