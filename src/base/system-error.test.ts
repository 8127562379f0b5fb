import { open } from "node:fs/promises";
import { expect, test } from "@jest/globals";
import { errnoOf, systemError, unlessErrno } from "./system-error.ts";

test("an error's errno is known by name, and other errors have none", async () => {
  const missing = await open("/nothing/is/here", "r").catch((error) => error);
  expect(errnoOf(missing)).toBe("ENOENT");
  expect(errnoOf(new Error("no"))).toBeUndefined();
  expect(errnoOf(Object.assign(new Error("no"), { code: "ERR_INVALID_ARG_TYPE" }))).toBeUndefined();
  expect(errnoOf("ENOENT")).toBeUndefined();
});

test.each([
  [28, "ENOSPC"],
  [37, "ENOLCK"],
  [95, "EOPNOTSUPP"],
  [122, "EDQUOT"],
  [4000, "E4000"],
])("errno %d is %s", (errno, name) => {
  const error = systemError("splice", errno);
  expect(errnoOf(error)).toBe(name);
  expect(error).toMatchObject({ code: name, errno: -errno, syscall: "splice" });
  expect(error.message).toMatch(new RegExp(`^${name}: .*, splice$`));
});

test("only a refusal that was expected is an answer", async () => {
  const refused = () => Promise.reject(systemError("open", 2));
  expect(await unlessErrno(["EACCES", "ENOENT"], refused)).toBeUndefined();
  await expect(unlessErrno(["EACCES"], refused)).rejects.toThrow("ENOENT");
  const bug = new TypeError("no errno");
  await expect(unlessErrno(["ENOENT"], () => Promise.reject(bug))).rejects.toBe(bug);
  expect(await unlessErrno(["ENOENT"], () => "done")).toBe("done");
});
