import { expect, test } from "@jest/globals";
import { jobSubject, volumesOf } from "./job-subject.ts";

const group = (...volumes: string[]) => ({ name: "shop", volumes });

test.each([
  [{ volume: "a" }, ["a"]],
  [{ group: group("a", "b") }, ["a", "b"]],
])("a job of %j moves %j", (spec, volumes) => {
  expect(volumesOf(spec)).toEqual(volumes);
});

test.each([
  ["nothing", {}],
  ["both", { volume: "a", group: group("b") }],
  ["a group of no volumes", { group: group() }],
  ["a group that names a volume twice", { group: group("a", "b", "a") }],
])("a job of %s is refused", (_what, spec) => {
  expect(() => jobSubject(spec)).toThrow(expect.objectContaining({ code: "BadRequest" }));
});
