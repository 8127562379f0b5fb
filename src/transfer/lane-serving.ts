// What serving lanes has in common, whatever carries them: the limits, what is told of, and the server made of its parts.

import type { Socket } from "node:net";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Address } from "../domain/address.ts";
import type { LongshoreError } from "../domain/errors.ts";
import type { LaneServer } from "./lane.ts";
import { type Connection, LaneListener } from "./lane-listener.ts";
import { LaneRegistry } from "./lane-registry.ts";
import type { LaneThreads } from "./lane-threads.ts";

export interface LaneServerOptions {
  /** Port 0 takes a free one. */
  readonly listen: Address;
  /** What peers dial when it is not the host listened on. */
  readonly advertiseHost?: string;
  /** A lane broke; called once for a lane, never for one that was closed by {@link LaneServer.closeLanes}. */
  onLaneError(owner: string, lane: number, error: Error): void;
  /** A connection was turned away before it became a lane; for the log. */
  onRefusal?(error: LongshoreError, remoteAddress: string | undefined): void;
  readonly clock: Clock;
  readonly dice: Dice;
  /** Where its connections run; not those of the dialers. */
  readonly threads: LaneThreads;
  readonly limits?: Partial<LaneServerLimits>;
}

export interface LaneServerLimits {
  /** Payload of one lane that is held or being written; reading pauses above it. */
  readonly windowBytesMax: number;
  /** Writes of one lane the sink has to do at once, where there is no file for the thread to write to. */
  readonly writesInFlightMax: number;
  /** From the connection to a whole preamble; with TLS, to the end of the handshake, and again to the preamble. */
  readonly openingMs: number;
  /** A lane that neither moves nor writes for so long is closed. */
  readonly idleMs: number;
  readonly connectionsMax: number;
}

export const laneServerLimits: LaneServerLimits = {
  windowBytesMax: 4 * 1024 * 1024,
  writesInFlightMax: 64,
  openingMs: 10_000,
  idleMs: 120_000,
  connectionsMax: 1024,
};

/** The options of a transport, whole, with what its connections share. */
export type LaneServing<Options extends LaneServerOptions> = Options & {
  readonly limits: LaneServerLimits;
  readonly registry: LaneRegistry;
};

/** Opens the port; `connect` gets each connection, paused, with nothing read yet. */
export async function serve<Options extends LaneServerOptions>(
  options: Options,
  connect: (socket: Socket, serving: LaneServing<Options>) => Connection,
): Promise<LaneServer> {
  const limits = { ...laneServerLimits, ...options.limits };
  const registry = new LaneRegistry({ ...options, ...limits });
  const serving = { ...options, limits, registry };
  const listener = new LaneListener({
    ...{ listen: options.listen, advertiseHost: options.advertiseHost, connectionsMax: limits.connectionsMax },
    connect: (socket) => connect(socket, serving),
    onError: (error) => options.onRefusal?.(error, undefined),
  });
  await listener.listen();
  return {
    address: listener.address,
    issue: (binding, sink) => registry.issue(binding, sink),
    closeLanes: (owner) => registry.closeLanes(owner),
    async close() {
      const lanes = registry.closeAll();
      await Promise.all([lanes, listener.close()]);
    },
  };
}
