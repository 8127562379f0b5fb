import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { openApiText } from "../../tools/generate-openapi.ts";
import { agentRoutes, memberRoutes, peerRoutes } from "../wire/routes.ts";

type Node = { [key: string]: Node } & { readonly length?: number };
const document = JSON.parse(openApiText()) as Node & { openapi: string };
const operations = Object.entries(document.paths ?? {}).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
);

test("the committed copy is current; if not: make generate", () => {
  const committed = readFileSync(join(import.meta.dirname, "..", "..", "docs", "openapi.json"), "utf8");
  expect(committed === openApiText()).toBe(true);
});

test("every route is in it, once, under its own id", () => {
  const ids = operations.map(({ operation }) => String(operation.operationId)).sort();
  expect(ids).toEqual([agentRoutes, memberRoutes, peerRoutes].flatMap((routes) => Object.keys(routes)).sort());
  expect(document.openapi).toBe("3.1.0");
});

test("every reference leads somewhere", () => {
  const references = [...openApiText().matchAll(/"\$ref": "#\/([^"]+)"/g)].map((match) => String(match[1]));
  expect(references.length).toBeGreaterThan(100);
  const missing = references.filter((reference) => {
    const found = reference.split("/").reduce<Node | undefined>((at, name) => at?.[name], document);
    return found === undefined;
  });
  expect(missing).toEqual([]);
});

describe.each(operations)("$method $path", ({ path, operation }) => {
  test("declares the parameters of its path, a success and problems", () => {
    const parameters = Object.values(operation.parameters ?? {}) as unknown as {
      name: string;
      in: string;
      required: boolean;
    }[];
    const declared = parameters.filter((one) => one.in === "path" && one.required).map(({ name }) => name);
    expect(declared.sort()).toEqual([...path.matchAll(/\{(\w+)\}/g)].map((match) => String(match[1])).sort());
    const statuses = Object.keys(operation.responses ?? {});
    expect(statuses).toContain("default");
    expect(statuses.some((status) => /^20[0124]$/.test(status))).toBe(true);
  });
});

test("its schemas are of the dialect that OpenAPI 3.1 has: tuples by prefixItems, nothing of the validator's own", () => {
  const text = openApiText();
  expect(text).not.toMatch(/additionalItems|"~|nullable/);
  expect(text).not.toMatch(/"items": \[/);
  expect(text).toContain('"prefixItems"');
});
