import { describe, expect, test } from "@jest/globals";
import { type ErrorCode, errorTable } from "../domain/errors.ts";
import { errorOfProblem, problemOf } from "./problem.ts";

const codes = Object.keys(errorTable) as ErrorCode[];

describe.each(codes)("%s", (code) => {
  test("goes over the wire and comes back", () => {
    const problem = problemOf(code, "the detail");
    expect(problem).toMatchObject({ type: `urn:longshore:problem:${code}`, status: errorTable[code].http, code });
    expect(errorOfProblem(JSON.parse(JSON.stringify(problem)), "context")).toMatchObject({
      code,
      message: "the detail",
    });
  });

  test("has an HTTP status of an error, a title and an advice", () => {
    const { status, title, advice } = problemOf(code, "");
    expect(status).toBeGreaterThanOrEqual(400);
    expect(title).toMatch(/^[A-Z][a-z ]+$/);
    expect(advice).toMatch(/^[A-Z].*\.$/);
  });
});

test.each([
  undefined,
  null,
  "text",
  7,
  {},
  { code: 7 },
  { code: "NoSuchCode" },
  { code: "toString" },
  { code: "__proto__" },
])("%p is no problem of ours", (body) => {
  expect(errorOfProblem(body, "context")).toBeUndefined();
});

test("a problem without detail has that of where it came from", () => {
  expect(errorOfProblem({ code: "NotFound" }, "10.0.0.1:7420 said 404")?.message).toBe("10.0.0.1:7420 said 404");
});
