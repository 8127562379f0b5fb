import { expect, test } from "@jest/globals";
import { addressesOf } from "./seed-addresses.ts";

const v4 = ["10.0.0.1", "10.0.0.2"].map((address) => ({ address, family: 4 }));
const v6 = ["2001:db8::1", "2001:db8::2"].map((address) => ({ address, family: 6 }));
const both = [...v6, ...v4];

test.each([
  // listens at, what the name stands for, where it leads to
  ["0.0.0.0", both, "10.0.0.1:7420 10.0.0.2:7420"],
  ["10.0.0.1", both, "10.0.0.1:7420 10.0.0.2:7420"],
  ["2001:db8::1", both, "[2001:db8::1]:7420 [2001:db8::2]:7420"],
  ["::", both, "[2001:db8::1]:7420 [2001:db8::2]:7420 10.0.0.1:7420 10.0.0.2:7420"],
  ["node-1.example", both, "[2001:db8::1]:7420 [2001:db8::2]:7420 10.0.0.1:7420 10.0.0.2:7420"],
  ["0.0.0.0", v6, "[2001:db8::1]:7420 [2001:db8::2]:7420"],
  ["0.0.0.0", [], ""],
])(
  "for an agent that listens at %s, a name leads to where others can listen as well: %j to %s",
  async (listen, found, led) => {
    const asked: string[] = [];
    const resolve = async (host: string) => {
      asked.push(host);
      return found;
    };
    expect((await addressesOf("agents.example:7420", listen, resolve)).join(" ")).toBe(led);
    expect(asked).toEqual(["agents.example"]);
  },
);

test("an address leads to itself", async () => {
  for (const seed of ["10.0.0.1:7420", "[2001:db8::1]:7420"])
    expect(await addressesOf(seed, "0.0.0.0")).toEqual([seed]);
});
