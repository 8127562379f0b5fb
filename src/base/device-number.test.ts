import { expect, test } from "@jest/globals";
import { renderDevice } from "./device-number.ts";

test.each([
  // st_dev, as the kernel writes it
  [0x0700, "7:0"],
  [0x0703, "7:3"],
  [0x7000_0000_0000n, "28672:0"],
  [0x100_07ff, "7:4351"],
  [0x2d, "0:45"],
  [0xfe00, "254:0"],
])("%s is %s", (number, expected) => {
  expect(renderDevice(number)).toBe(expected);
});
