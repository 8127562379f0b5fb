// MemberApi over HTTP: one agent of the own cluster, at its own address.
import { LongshoreError } from "../domain/errors.ts";
import type { Credentials } from "./credentials.ts";
import { type ClientTimeouts, openHttpClient } from "./http-client.ts";
import type { MemberApi } from "./member.ts";
import { agentRoutes, memberRoutes as routes } from "./routes.ts";

export interface MemberClientOptions {
  /** host:port of the one agent that is meant. */
  readonly address: string;
  /** Its id; without it, whoever answers at the address. */
  readonly agentId?: string | undefined;
  /** Of this agent; the other must be of the same CA and cluster. */
  readonly credentials: Credentials;
  readonly timeouts?: Partial<ClientTimeouts>;
}

/** Throws what the other threw, `Unreachable`, `Untrusted`, `StreamTorn` or `Timeout`. */
export function openMemberClient(options: MemberClientOptions): MemberApi & { close(): Promise<void> } {
  const { address, agentId, credentials, timeouts } = options;
  const http = openHttpClient({
    addresses: [address],
    credentials,
    trustedCa: () => credentials.current().ca,
    clusterUid: credentials.identity.clusterUid,
    agentId,
    greeting: agentRoutes.describe,
    ...(timeouts && { timeouts }),
  });
  const ask = async <T>(call: Promise<T | undefined>): Promise<T> => {
    const body = await call;
    if (body === undefined) throw new LongshoreError("Unsupported", `${address} answered without a body`);
    return body;
  };
  const tell = async (call: Promise<unknown>): Promise<void> => {
    await call;
  };
  return {
    meet: (body) => ask(http.call(routes.memberMeet, { body })),
    acquaintance: () => ask(http.call(routes.memberAcquaintance, {})),
    claimName: (body) => ask(http.call(routes.memberClaimName, { body })),
    volumeNames: (body) => ask(http.call(routes.memberVolumeNames, { body })),
    copies: (body) => ask(http.call(routes.memberCopies, { body })),
    place: (body) => ask(http.call(routes.memberPlace, { body })),
    decision: (body) => ask(http.call(routes.memberDecision, { body })),
    memberOutcome: (body) => ask(http.call(routes.memberOutcome, { body })),
    holdings: (body) => ask(http.call(routes.memberHoldings, { body })),
    freeze: (body) => tell(http.call(routes.memberFreeze, { body })),
    snapshotFrozen: (body) => tell(http.call(routes.memberSnapshotFrozen, { body })),
    thaw: (body) => ask(http.call(routes.memberThaw, { body })),
    confirmGroup: (body) => ask(http.call(routes.memberConfirmGroup, { body })),
    discardGroup: (body) => tell(http.call(routes.memberDiscardGroup, { body })),
    takeShare: (job, body) => ask(http.call(routes.memberTakeShare, { params: { job }, body })),
    async shareReport(job) {
      const { report } = await ask(http.call(routes.memberShareReport, { params: { job } }));
      return report ?? undefined;
    },
    order: (job, body) => ask(http.call(routes.memberOrder, { params: { job }, body })),
    pauseShare: (job, term) => tell(http.call(routes.memberPauseShare, { params: { job }, body: { term } })),
    close: () => http.close(),
  };
}
