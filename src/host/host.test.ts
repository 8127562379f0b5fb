import { expect, test } from "@jest/globals";
import { isBelow } from "./host.ts";

test.each([
  ["/var/lib/kubelet/pods/a/mount", true],
  ["/var/lib/kubelet/a", true],
  ["/var/lib/kubelet/..a", true],
  ["/var/lib/kubelet", false],
  ["/var/lib/kubelet/", false],
  ["/var/lib/kubelet2/a", false],
  ["/var/lib", false],
  ["/", false],
  ["/var/lib/kubelet/../../etc", false],
  ["/var/lib/kubelet/a/../b", false],
  ["/etc/../var/lib/kubelet/a", false],
  ["pods/a", false],
  ["", false],
])("%p is below the kubelet's folder: %s", (path, expected) => {
  expect(isBelow(path, "/var/lib/kubelet")).toBe(expected);
});
