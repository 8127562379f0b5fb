import { describe, expect, test } from "@jest/globals";
import { memberRoutes, peerRoutes, type Route } from "./routes.ts";
import { additionsIn, fitted, understoodHere } from "./understood.ts";

const route: Route = {
  method: "POST",
  path: "/v1/thing",
  group: "peer",
  summary: "A thing",
  newer: { colour: ["colour"], weight: ["parts.*.weight", "box.weight"] },
};

const whole = { name: "a", colour: "red", parts: [{ weight: 1, size: 2 }, { size: 3 }], box: { weight: 9, lid: true } };

describe("a body", () => {
  test.each<[unknown, string[]]>([
    [{ name: "a" }, []],
    [{ name: "a", colour: undefined }, []],
    [{ colour: "red" }, ["colour"]],
    [{ colour: null }, ["colour"]],
    [{ parts: [{ size: 1 }, { weight: 0 }] }, ["weight"]],
    [{ parts: "none", box: [] }, []],
    [whole, ["colour", "weight"]],
    [undefined, []],
  ])("%j has of what was added: %j", (body, expected) => {
    expect(additionsIn(route, body)).toEqual(expected);
  });

  test.each<[string[], unknown]>([
    [["colour", "weight"], whole],
    [["weight"], { name: "a", parts: whole.parts, box: whole.box }],
    [["colour", "else"], { name: "a", colour: "red", parts: [{ size: 2 }, { size: 3 }], box: { lid: true } }],
    [[], { name: "a", parts: [{ size: 2 }, { size: 3 }], box: { lid: true } }],
  ])("goes to an agent that understands %j as %j", (understood, expected) => {
    const sent = fitted(route, whole, new Set(understood));
    expect(JSON.stringify(sent)).toBe(JSON.stringify(expected));
    expect(additionsIn(route, sent).every((name) => understood.includes(name))).toBe(true);
  });

  test("of a route to which nothing was added goes as it is", () => {
    const { newer: _, ...plain } = route;
    expect(fitted(plain, whole, new Set())).toBe(whole);
    expect(additionsIn(plain, whole)).toEqual([]);
  });
});

test("agents of the version before are asked for homes without affinities", () => {
  const volumes = [{ volume: "v1", sizeBytes: 4096, affinity: "a" }];
  const plain = [{ volume: "v1", sizeBytes: 4096 }];
  const nothing = new Set<string>();
  expect(fitted(peerRoutes.peerLocate, { group: "g", volumes }, nothing)).toEqual({ group: "g", volumes: plain });
  expect(fitted(memberRoutes.memberPlace, { clusterUid: "c", volumes }, nothing)).toEqual({
    clusterUid: "c",
    volumes: plain,
  });
  const asked = { clusterUid: "c", volumes: ["v1"], affinities: ["a"] };
  expect(fitted(memberRoutes.memberCopies, asked, nothing)).toEqual({ clusterUid: "c", volumes: ["v1"] });
  expect(fitted(memberRoutes.memberCopies, asked, new Set(["affinity"]))).toEqual(asked);
});

test("an agent says that it understands whatever its own routes have since the first version, once each", () => {
  const names = Object.values<Route>({ ...peerRoutes, ...memberRoutes }).flatMap(({ newer = {} }) =>
    Object.keys(newer),
  );
  expect(names.length).toBeGreaterThan(0);
  expect(understoodHere()).toEqual([...new Set(names)].sort());
});

test("what was added is a field of the route's body, and an optional one", () => {
  const wrong = Object.entries<Route>({ ...peerRoutes, ...memberRoutes }).flatMap(([id, { newer = {}, body }]) =>
    Object.values(newer)
      .flat()
      .filter((field) => !isOptionalIn(body as Shape | undefined, field.split(".")))
      .map((field) => `${id}: ${field}`),
  );
  expect(wrong).toEqual([]);
});

interface Shape {
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly required?: readonly string[];
  readonly items?: Shape;
}

function isOptionalIn(schema: Shape | undefined, [head = "", ...rest]: readonly string[]): boolean {
  if (head === "*") return isOptionalIn(schema?.items, rest);
  const inner = schema?.properties?.[head];
  if (inner === undefined) return false;
  return rest.length > 0 ? isOptionalIn(inner, rest) : schema?.required?.includes(head) !== true;
}
