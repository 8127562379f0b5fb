// A client of the driver over its real socket, as the sidecars are; or of a sidecar.
import { resolve } from "node:path";
import {
  type ChannelCredentials,
  type ChannelOptions,
  credentials,
  makeClientConstructor,
  type ServiceDefinition,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { GrpcService } from "../../src/csi/grpc-server.ts";

export interface CsiClient {
  /** Rejects with an error whose `code` is gRPC's number, and whose `details` are the message. */
  call<A>(method: string, request?: object, options?: { readonly deadlineMs?: number }): Promise<A>;
  stream<A>(method: string, request?: object): AsyncIterable<A>;
  close(): void;
}

const protoFolder = resolve(import.meta.dirname, "../../src/csi/proto");
const protoOptions = { keepCase: false, longs: Number, enums: String, defaults: true, oneofs: true } as const;

interface Service extends Pick<GrpcService, "service"> {
  /** In the driver's folder, or an absolute path: of a service that is not the driver's. */
  readonly protoFile: string;
}

export interface Channel {
  readonly credentials: ChannelCredentials;
  readonly options?: ChannelOptions;
}

export function openCsiClient(
  endpoint: string,
  { protoFile, service }: Service,
  channel: Channel = { credentials: credentials.createInsecure() },
): CsiClient {
  const definition = loadSync(resolve(protoFolder, protoFile), protoOptions)[service];
  const Client = makeClientConstructor(definition as unknown as ServiceDefinition, service);
  const client = new Client(endpoint, channel.credentials, channel.options);
  const methodOf = (name: string) => {
    const method = client[name];
    if (method === undefined) throw new Error(`${service} has no call ${name}`);
    return method.bind(client);
  };
  return {
    call: (method, request = {}, { deadlineMs = 20_000 } = {}) =>
      new Promise((settle, reject) => {
        const deadline = new Date(Date.now() + deadlineMs);
        methodOf(method)(request, { deadline }, (error: Error | null, answer: never) => {
          if (error === null) settle(answer);
          else reject(error);
        });
      }),
    async *stream(method, request = {}) {
      const answers = methodOf(method)(request);
      // Whoever reads is told by the iteration; cancelling what nobody reads any more is an error of its own.
      answers.on("error", () => undefined);
      try {
        yield* answers;
      } finally {
        answers.cancel();
      }
    },
    close: () => client.close(),
  };
}

export const identity = { protoFile: "csi.proto", service: "csi.v1.Identity" } as const;
export const controller = { protoFile: "csi.proto", service: "csi.v1.Controller" } as const;
export const groupController = { protoFile: "csi.proto", service: "csi.v1.GroupController" } as const;
export const node = { protoFile: "csi.proto", service: "csi.v1.Node" } as const;
export const registration = { protoFile: "registration.proto", service: "pluginregistration.Registration" } as const;
export const snapshotMetadata = { protoFile: "snapshot-metadata.proto", service: "csi.v1.SnapshotMetadata" } as const;
