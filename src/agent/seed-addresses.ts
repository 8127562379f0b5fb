// Where the seeds of an agent lead to: each address is taken for an agent, and waited for by one that is new (engine/members.ts).
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { parseAddress, renderAddress } from "../domain/address.ts";

interface Found {
  readonly address: string;
  readonly family: number;
}

type Resolve = (host: string) => Promise<readonly Found[]>;

/**
 * Of a name or an address, with its port. Of a name with addresses of both versions only those of the one that this agent listens at: the
 * other agents are configured alike, and an address at which nobody listens would stand for an agent that never comes.
 */
export async function addressesOf(seed: string, listenHost: string, resolve: Resolve = lookupAll): Promise<string[]> {
  const { host, port } = parseAddress(seed);
  const found = await resolve(host);
  const listened = found.filter(({ family }) => listenHost === "::" || family === isIP(listenHost));
  return (listened.length > 0 ? listened : found).map(({ address }) => renderAddress({ host: address, port }));
}

function lookupAll(host: string): Promise<Found[]> {
  return lookup(host, { all: true });
}
