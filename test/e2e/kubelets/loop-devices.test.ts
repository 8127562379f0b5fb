import { expect, test } from "@jest/globals";
import { deviceNumber, parseLoopDevices } from "./loop-devices.ts";

test.each([
  // of stat, as the kernel writes it
  [0x0706, "7:6"],
  [0x07ff, "7:255"],
  [0x100_700, "7:256"],
  [6, "0:6"],
  [0xfe00, "254:0"],
])("the device number %d is %s", (dev, text) => {
  expect(deviceNumber(dev)).toBe(text);
});

test("a list of loop devices is read, whatever the columns are padded with", () => {
  const text = "/dev/loop0     131   7:1\n/dev/loop12 4242 0:6\n\n";
  expect(parseLoopDevices(text)).toEqual([
    { name: "/dev/loop0", backingInode: 131, backingDevice: "7:1" },
    { name: "/dev/loop12", backingInode: 4242, backingDevice: "0:6" },
  ]);
});

test("where nothing is attached there is nothing to read", () => {
  expect(parseLoopDevices("")).toEqual([]);
});
