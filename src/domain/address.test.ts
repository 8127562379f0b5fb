import { expect, test } from "@jest/globals";
import { parseAddress, renderAddress } from "./address.ts";

test.each([
  ["10.0.0.1:7443", { host: "10.0.0.1", port: 7443 }],
  ["[fd00::1]:7443", { host: "fd00::1", port: 7443 }],
  ["agent-0.example.org:1", { host: "agent-0.example.org", port: 1 }],
])("the address %s is taken apart and put together", (text, parts) => {
  expect(parseAddress(text)).toEqual(parts);
  expect(renderAddress(parts)).toBe(text);
});

test.each(["", "host", ":1", "host:", "host:0", "host:65536", "fd00::1:7443", "a b:1", "host:1/x"])(
  "%j is no address, and is refused as none of anything in particular",
  (text) => {
    const message = `not an address of the form host:port: ${text}`;
    expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: "BadRequest", message }));
  },
);

test("port 0 is one to listen at", () => {
  expect(parseAddress("[::]:0", { portMin: 0 })).toEqual({ host: "::", port: 0 });
});
