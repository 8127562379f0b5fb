import { expect, test } from "@jest/globals";
import type { GetPluginCapabilitiesResponse, GetPluginInfoResponse, ProbeResponse } from "./csi-messages.ts";
import type { UnaryCall } from "./grpc-server.ts";
import { identityService, pluginCapabilities } from "./identity.ts";

function ask<A>(method: string): Promise<A> {
  const { calls } = identityService({ version: "1.2.3", capabilities: pluginCapabilities });
  return (calls[method] as UnaryCall)({} as never, new AbortController().signal) as Promise<A>;
}

test("says who it is", async () => {
  const info = await ask<GetPluginInfoResponse>("GetPluginInfo");
  expect(info).toEqual({ name: "csi.longshore.dev", vendorVersion: "1.2.3", manifest: {} });
});

test("says what the driver as a whole can do", async () => {
  expect((await ask<GetPluginCapabilitiesResponse>("GetPluginCapabilities")).capabilities).toEqual([
    { service: { type: "CONTROLLER_SERVICE" } },
    { service: { type: "VOLUME_ACCESSIBILITY_CONSTRAINTS" } },
    { service: { type: "GROUP_CONTROLLER_SERVICE" } },
    { service: { type: "SNAPSHOT_METADATA_SERVICE" } },
    { volumeExpansion: { type: "ONLINE" } },
  ]);
});

test("is ready when it serves, whoever else does not answer", async () => {
  expect(await ask<ProbeResponse>("Probe")).toEqual({ ready: { value: true } });
});
