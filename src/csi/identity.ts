// Who the driver is and what it can do: the service that the controller's and the node's process both serve.
import { driverName } from "../api/names.ts";
import type {
  GetPluginCapabilitiesRequest,
  GetPluginCapabilitiesResponse,
  GetPluginInfoRequest,
  GetPluginInfoResponse,
  PluginCapability,
  ProbeRequest,
  ProbeResponse,
} from "./csi-messages.ts";
import type { GrpcService } from "./grpc-server.ts";

/** Of the driver as a whole: by the specification every process of it says the same, whichever calls it serves. */
export const pluginCapabilities: readonly PluginCapability[] = [
  { service: { type: "CONTROLLER_SERVICE" } },
  { service: { type: "VOLUME_ACCESSIBILITY_CONSTRAINTS" } },
  { service: { type: "GROUP_CONTROLLER_SERVICE" } },
  { service: { type: "SNAPSHOT_METADATA_SERVICE" } },
  { volumeExpansion: { type: "ONLINE" } },
];

export interface IdentityParts {
  /** Of all of Longshore. */
  readonly version: string;
  readonly capabilities: readonly PluginCapability[];
}

export function identityService({ version, capabilities }: IdentityParts): GrpcService {
  return {
    protoFile: "csi.proto",
    service: "csi.v1.Identity",
    calls: {
      async GetPluginInfo(_request: GetPluginInfoRequest): Promise<GetPluginInfoResponse> {
        return { name: driverName, vendorVersion: version, manifest: {} };
      },
      async GetPluginCapabilities(_request: GetPluginCapabilitiesRequest): Promise<GetPluginCapabilitiesResponse> {
        return { capabilities };
      },
      // Of the driver's own start, which is over when it serves. For agents that are away sidecars must not wait: they tell nobody
      // that they are well before the driver is ready, and are restarted for that. Calls say what they cannot reach.
      async Probe(_request: ProbeRequest): Promise<ProbeResponse> {
        return { ready: { value: true } };
      },
    },
  };
}
