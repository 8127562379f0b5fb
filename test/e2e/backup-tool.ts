// A backup tool, as far as it asks what of a snapshot is to be read: it calls the sidecar external-snapshot-metadata over TLS, with a
// token. And the sidecar's certificate, made as docs/csi.md says.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { credentials } from "@grpc/grpc-js";
import { openCsiClient } from "../fakes/csi-client.ts";

const run = promisify(execFile);
const api = {
  protoFile: join(import.meta.dirname, "../fakes/snapshot-metadata-api.proto"),
  service: "snapshotmetadata.SnapshotMetadata",
};

/** The name that the certificate is for, and the audience of tokens, as manifests/examples/snapshot-metadata-service.yaml has them. */
const serviceName = "longshore-snapshot-metadata.longshore-system.svc";
export const audience = "csi.longshore.dev";

export interface ServerCertificate {
  readonly certFile: string;
  readonly keyFile: string;
  /** What clients trust: it is its own authority. */
  readonly pem: Buffer;
}

export async function makeServerCertificate(folder: string): Promise<ServerCertificate> {
  const [certFile, keyFile] = [join(folder, "metadata.crt"), join(folder, "metadata.key")];
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  const names = ["-subj", "/CN=longshore-snapshot-metadata", "-addext", `subjectAltName=DNS:${serviceName}`];
  await run("openssl", ["req", "-x509", ...kind, ...names, "-keyout", keyFile, "-out", certFile]);
  return { certFile, keyFile, pem: await readFile(certFile) };
}

/** SnapshotMetadataService of the examples, with the certificate in it. */
export async function snapshotMetadataService({ pem }: ServerCertificate): Promise<string> {
  const example = join(import.meta.dirname, "../../manifests/examples/snapshot-metadata-service.yaml");
  return (await readFile(example, "utf8")).replace("CABUNDLE", pem.toString("base64"));
}

export interface Range {
  readonly offset: number;
  readonly length: number;
}

export interface BackupTool {
  /** Ranges of a VolumeSnapshot with data, in order, joined where they touch. */
  allocated(of: { readonly namespace: string; readonly snapshot: string }): Promise<Range[]>;
  /** Those that may differ from an older snapshot of the same volume, which is named by its handle. */
  changed(of: { readonly namespace: string; readonly snapshot: string; readonly since: string }): Promise<Range[]>;
  close(): void;
}

interface RangesResponse {
  readonly blockMetadata: readonly { readonly byteOffset: number; readonly sizeBytes: number }[];
}

/** `address` is that of a pod, whose name is not in the certificate; the name of its Service is. */
export function openBackupTool(address: string, pem: Buffer, securityToken: string): BackupTool {
  const client = openCsiClient(address, api, {
    credentials: credentials.createSsl(pem),
    options: { "grpc.ssl_target_name_override": serviceName, "grpc.default_authority": serviceName },
  });
  const ranges = async (call: string, request: object) => {
    const found: Range[] = [];
    for await (const { blockMetadata } of client.stream<RangesResponse>(call, { securityToken, ...request })) {
      for (const { byteOffset: offset, sizeBytes: length } of blockMetadata) append(found, { offset, length });
    }
    return found;
  };
  return {
    allocated: ({ namespace, snapshot }) => ranges("GetMetadataAllocated", { namespace, snapshotName: snapshot }),
    changed: ({ namespace, snapshot, since }) =>
      ranges("GetMetadataDelta", { namespace, targetSnapshotName: snapshot, baseSnapshotId: since }),
    close: () => client.close(),
  };
}

function append(ranges: Range[], next: Range): void {
  const last = ranges.at(-1);
  if (last === undefined || last.offset + last.length < next.offset) ranges.push(next);
  else ranges[ranges.length - 1] = { offset: last.offset, length: next.offset + next.length - last.offset };
}
