// How a person's command reaches an agent, and in which form it answers.
import { join } from "node:path";
import type { Command } from "commander";
import { LongshoreError } from "../domain/errors.ts";
import { readIssued } from "../pki/folder.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import { openAgentClient } from "../wire/agent-client.ts";
import { openClusterClient } from "../wire/cluster-client.ts";
import { openCredentials } from "../wire/credentials.ts";
import type { Streams } from "./streams.ts";

export interface ConnectionOptions {
  readonly agent?: string[];
  readonly pki?: string;
  readonly role: string;
  readonly output: string;
}

/** Adds the options that all commands share which ask an agent. */
export function connected(command: Command): Command {
  return command
    .option("--agent <address...>", "host:port of an agent; $LONGSHORE_AGENT, else 127.0.0.1:7420")
    .option("--pki <dir>", "folder with ca.crt and the role's certificate; $LONGSHORE_PKI")
    .option("--role <role>", "whose certificate of the folder to show", "admin")
    .option("-o, --output <form>", "table or json", "table");
}

export interface Asking extends Omit<Streams, "exitCode"> {
  readonly api: AgentApi;
  /** Prints JSON when that was asked for, the text otherwise. */
  show(value: unknown, text: () => string): void;
}

/** Opens a connection for the time of `work`. */
export async function withAgent(options: ConnectionOptions, streams: Streams, work: (asking: Asking) => Promise<void>) {
  if (options.output !== "table" && options.output !== "json")
    throw new LongshoreError("BadRequest", `--output ${options.output}: use table or json`);
  const credentials = await openCredentials(await filesOf(options, streams));
  const open = (addresses: readonly string[], agentId?: string) =>
    openAgentClient({ addresses, agentId, isOneAgent: true, credentials, reconnectMs: 30_000 });
  const first = open(addressesOf(options, streams));
  const api = openClusterClient({
    first,
    isFirstOneAgent: true,
    open: (address, agentId) => open([address], agentId),
    onSilent: ({ node, agentId }, problem) =>
      streams.err(`warning: agent ${agentId} on node ${node} does not answer; what it has is not shown (${problem})\n`),
  });
  const show = (value: unknown, text: () => string) =>
    streams.out(options.output === "json" ? `${JSON.stringify(value, undefined, 2)}\n` : text());
  try {
    await work({ ...streams, api, show });
  } finally {
    await api.close();
    await first.close();
    credentials.close();
  }
}

async function filesOf({ pki, role }: ConnectionOptions, { env }: Streams) {
  const folder = pki ?? env.LONGSHORE_PKI;
  if (folder === undefined)
    throw new LongshoreError("BadRequest", "which certificates to show is not known: give --pki or $LONGSHORE_PKI");
  // Says how it is made, if it is not there.
  await readIssued(folder, role);
  const file = (name: string) => join(folder, name);
  return { certFile: file(`${role}.crt`), keyFile: file(`${role}.key`), caFile: file("ca.crt") };
}

function addressesOf({ agent }: ConnectionOptions, { env }: Streams): string[] {
  const lists = agent ?? [env.LONGSHORE_AGENT ?? "127.0.0.1:7420"];
  return lists.flatMap((list) => list.split(",")).filter((address) => address !== "");
}
