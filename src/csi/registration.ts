// pluginregistration.Registration: how the kubelet learns that there is a CSI driver on its node. It finds the socket in its folder for
// plugins, asks who is there, and says what has become of it.
import { driverName } from "../api/names.ts";
import type { Log } from "../base/log.ts";
import type { PluginInfo, RegistrationStatus } from "./node-messages.ts";

export interface RegistrationParts {
  /** The path of the driver's own socket, as the kubelet sees it. */
  readonly endpoint: string;
  readonly log: Log;
}

/** Of the interface, not of the driver: the kubelet speaks CSI 1. */
const supportedVersions = ["1.0.0"];

/** The service and its calls, for openGrpcServer. */
export function registrationService({ endpoint, log }: RegistrationParts) {
  return {
    protoFile: "registration.proto" as const,
    service: "pluginregistration.Registration",
    calls: {
      async GetInfo(): Promise<PluginInfo> {
        return { type: "CSIPlugin", name: driverName, endpoint, supportedVersions };
      },
      /** A refused plugin is asked again by the kubelet, with growing delays; here it is only told. */
      async NotifyRegistrationStatus({
        pluginRegistered,
        error,
      }: RegistrationStatus): Promise<Readonly<Record<string, never>>> {
        if (pluginRegistered) log.info({ endpoint }, "registered with the kubelet");
        else log.error({ endpoint, problem: error }, "the kubelet refused the driver");
        return {};
      },
    },
  };
}
