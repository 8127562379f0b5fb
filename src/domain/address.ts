// How a place on the network is written, wherever one is dialled or listened at: `host:port`, an IPv6 host in brackets.
import { LongshoreError } from "./errors.ts";

export interface Address {
  /** A name, or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
}

export function renderAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Throws `BadRequest` for anything else. Port 0 is one to listen at only, where it stands for any that is free. */
export function parseAddress(text: string, { portMin = 1 }: { readonly portMin?: 0 | 1 } = {}): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/]+)):([0-9]{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port < portMin || port > 65_535) {
    throw new LongshoreError("BadRequest", `not an address of the form host:port: ${text}`);
  }
  return { host, port };
}
