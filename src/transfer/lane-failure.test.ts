import { expect, test } from "@jest/globals";
import { BugError } from "../base/assert.ts";
import { systemError } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import { parseError, threadFailure } from "./lane-failure.ts";
import { renderError } from "./lane-messages.ts";

test("our errors come back with their code and all their causes", () => {
  const cause = new Error("cut", { cause: systemError("read", 104) });
  const back = parseError(renderError(new LongshoreError("StreamTorn", "lane: it broke", { cause })));
  expect(back).toBeInstanceOf(LongshoreError);
  expect(back).toMatchObject({
    code: "StreamTorn",
    message: "lane: it broke",
    cause: { message: "cut", cause: { code: "ECONNRESET", syscall: "read" } },
  });
  expect(parseError(renderError(new BugError("a defect")))).toBeInstanceOf(BugError);
  expect(parseError(renderError("text"))).toMatchObject({ message: "text" });
});

test.each([
  [28, { code: "DiskFull", cause: { code: "ENOSPC" } }],
  [122, { code: "DiskFull", cause: { code: "EDQUOT" } }],
  [5, { message: "cannot write it", cause: { code: "EIO" } }],
])("errno %d of a thread means the same as it does here", (errno, meaning) => {
  expect(threadFailure("write it", renderError(systemError("pwrite", errno)))).toMatchObject(meaning);
});

test("an error of ours that this version does not know is a defect", () => {
  const sent = { name: "LongshoreError", message: "from the future", code: "Unheard" };
  expect(parseError(sent)).toMatchObject({ code: "Internal" });
});
