// One end of a lane as a process of its own, which its test kills: dials and sends as long as it lives, or serves.
import { openSync } from "node:fs";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { kernelLaneDialer } from "../../src/transfer/kernel-lane-dialer.ts";
import { openKernelLaneServer } from "../../src/transfer/kernel-lane-server.ts";
import type { LaneDialer, LaneServer, LaneSink } from "../../src/transfer/lane.ts";
import { LaneThreads } from "../../src/transfer/lane-threads.ts";
import { tlsLaneDialer } from "../../src/transfer/tls-lane-dialer.ts";
import { openTlsLaneServer } from "../../src/transfer/tls-lane-server.ts";
import { memorySource, unit } from "../contract/lane-ends.ts";
import { authorizeBy, type TestCluster } from "../contract/lane-pki.ts";

export type Transport = "tls" | "kernel";

/** An end's certificate and key, and both clusters, without what makes certificates. */
export interface Identity {
  readonly own: { readonly cert: string; readonly key: string };
  readonly clusters: readonly Pick<TestCluster, "clusterUid" | "ca">[];
}

export type Order =
  | {
      readonly kind: "send";
      readonly transport: Transport;
      readonly identity: Identity;
      readonly address: string;
      readonly ticket: string;
      readonly path: string;
    }
  | { readonly kind: "serve"; readonly transport: Transport; readonly identity: Identity; readonly path: string };

/** Units of the whole image, each of one extent. */
export const unitBytes = 1024 * 1024;
export const unitCount = 64;
export const unitAt = (index: number) => unit(index, [index * unitBytes, unitBytes]);

export const sourceUid = "source-uid";
export const targetUid = "target-uid";
const clock = systemClock;
const never = new AbortController().signal;

export function dialerOf(transport: Transport, identity: Identity, threads: LaneThreads): LaneDialer {
  const authorize = authorizeBy(identity.clusters);
  const trust = () => identity.clusters.map(({ ca }) => ca);
  return transport === "tls"
    ? tlsLaneDialer({ clock, threads, authorize, trust, credentials: { current: () => identity.own } })
    : kernelLaneDialer({ clock, threads });
}

export function serverOf(transport: Transport, identity: Identity, threads: LaneThreads): Promise<LaneServer> {
  const options = {
    ...{ clock, threads, dice: systemDice, onLaneError: () => {} },
    listen: { host: "127.0.0.1", port: 0 },
  };
  if (transport === "kernel") return openKernelLaneServer(options);
  const authorize = authorizeBy(identity.clusters);
  const trust = () => identity.clusters.map(({ ca }) => ca);
  return openTlsLaneServer({ ...options, authorize, trust, credentials: { current: () => identity.own } });
}

async function send(order: Extract<Order, { kind: "send" }>): Promise<void> {
  const dialer = dialerOf(order.transport, order.identity, new LaneThreads({ clock }));
  const source = { ...memorySource, fd: openSync(order.path, "r") };
  const { address, ticket } = order;
  const to = { address, ticket, source, peerClusterUid: targetUid, hasDigests: true };
  const lane = await dialer.open(to, never);
  for (let index = 0; ; index = (index + 1) % unitCount) await lane.send(unitAt(index));
}

async function serve(order: Extract<Order, { kind: "serve" }>): Promise<void> {
  const server = await serverOf(order.transport, order.identity, new LaneThreads({ clock }));
  const sink: LaneSink = {
    fd: openSync(order.path, "r+"),
    begin: (index) => unitAt(index % unitCount).extents,
    write: async () => {},
    arrived: (index) => process.send?.({ arrived: index }),
  };
  const ticket = server.issue({ owner: "volume", epoch: 1, lane: 0, peerClusterUid: sourceUid }, sink);
  process.send?.({ address: server.address, ticket });
}

if (process.send !== undefined && process.argv[1] === import.meta.filename) {
  process.on("disconnect", () => process.exit(0));
  process.once("message", (order: Order) => void (order.kind === "send" ? send(order) : serve(order)));
}
