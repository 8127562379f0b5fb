import { expect, test } from "@jest/globals";
import { parseQuantity, renderBytes } from "./quantity.ts";

test.each([
  ["0", 0],
  ["1", 1],
  ["1k", 1_000],
  ["1Ki", 1_024],
  ["100Mi", 104_857_600],
  ["1.5G", 1_500_000_000],
  ["0.001Ki", 2],
  ["4Pi", 2 ** 52],
])("%s is %i bytes", (text, bytes) => {
  expect(parseQuantity(text)).toBe(bytes);
});

test.each(["", "1K", "1kB", "-1", "1 Gi", "1e3", "Gi"])("%j is no quantity", (text) => {
  expect(() => parseQuantity(text)).toThrow("not a quantity of bytes");
});

test("more than can be counted is refused", () => {
  expect(() => parseQuantity("5Pi")).toThrow("more than 4Pi");
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1536, "1.5 KiB"],
  [104_857_600, "100 MiB"],
  [1_234_567_890, "1.15 GiB"],
])("%i bytes read %s", (bytes, text) => {
  expect(renderBytes(bytes)).toBe(text);
});
