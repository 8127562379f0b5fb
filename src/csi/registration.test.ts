import { expect, test } from "@jest/globals";
import { openLog, silentLog } from "../base/log.ts";
import { registrationService } from "./registration.ts";

const endpoint = "/var/lib/kubelet/plugins/csi.longshore.dev/csi.sock";

test("the kubelet is told who is there, and where", async () => {
  const { service, protoFile, calls } = registrationService({ endpoint, log: silentLog });
  expect([protoFile, service]).toEqual(["registration.proto", "pluginregistration.Registration"]);
  expect(await calls.GetInfo()).toEqual({
    type: "CSIPlugin",
    name: "csi.longshore.dev",
    endpoint,
    supportedVersions: ["1.0.0"],
  });
});

test.each([
  // what the kubelet says, the line in the log
  [
    { pluginRegistered: true, error: "" },
    { level: "info", msg: "registered with the kubelet", endpoint },
  ],
  [
    { pluginRegistered: false, error: "no such thing" },
    { level: "error", msg: "the kubelet refused the driver", problem: "no such thing" },
  ],
])("what has become of it is logged: %j", async (status, line) => {
  const lines: string[] = [];
  const log = openLog({ name: "csi", level: "info" }, { write: (text) => void lines.push(text) });
  const { calls } = registrationService({ endpoint, log });
  expect(await calls.NotifyRegistrationStatus(status)).toEqual({});
  expect(lines.map((text) => JSON.parse(text))).toEqual([expect.objectContaining(line)]);
});
