import { expect, test } from "@jest/globals";
import { systemError } from "../base/system-error.ts";
import { LongshoreError } from "./errors.ts";
import { systemFailure } from "./system-failure.ts";

test.each([
  // errno, code
  [28, "DiskFull"],
  [122, "DiskFull"],
  [27, "BadRequest"],
  [2, "PointGone"],
  [40, "PointGone"],
])("errno %d while reading what may be gone is %s", (errno, code) => {
  const cause = systemError("pread", errno);
  expect(systemFailure("read it", cause, "PointGone")).toMatchObject({ code, message: "cannot read it", cause });
});

test("other failures of the system keep their text as the cause, and our own errors pass", () => {
  const cause = systemError("pread", 5);
  expect(systemFailure("read it", cause)).toMatchObject({ message: "cannot read it", cause });
  expect(systemFailure("read it", systemError("open", 2))).not.toBeInstanceOf(LongshoreError);
  const ours = new LongshoreError("TermLost", "it is not ours any more");
  expect(systemFailure("read it", ours)).toBe(ours);
});
