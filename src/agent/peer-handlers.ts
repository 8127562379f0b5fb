// /v1/peer for foreign clusters: each request is one call of the PeerApi that belongs to the cluster its certificate names.
import { assert } from "../base/assert.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { GroupTarget, PeerApi, PeerTarget, Term } from "../wire/peer.ts";
import type { peerRoutes } from "../wire/routes.ts";
import { checkMetadata } from "./agent-handlers.ts";
import type { Caller } from "./caller.ts";
import { done, found, type Handlers } from "./handler.ts";

/** A foreign cluster that was let in. */
export type PeerCaller = Omit<Extract<Caller, { kind: "foreign" }>, "kind" | "role">;

/** Gives the protocol as one foreign cluster may use it: its own volumes only. */
export type PeerFor = (caller: PeerCaller) => PeerApi;

export function peerHandlers(peerFor: PeerFor): Handlers<typeof peerRoutes> {
  const peerOf = ({ caller }: { caller: Caller }) => {
    assert(caller.kind === "foreign", "only foreign agents are admitted to the peer routes");
    return peerFor(caller);
  };
  return {
    peerHello: async (request) => found(await peerOf(request).hello()),
    async peerReport(request) {
      const { clusterUid, volumeUid, pointId } = request.query;
      const isTold = clusterUid !== undefined && volumeUid !== undefined && pointId !== undefined;
      const lineage = isTold ? { clusterUid, volumeUid, pointId } : undefined;
      return found({ report: (await peerOf(request).report(request.params.volume, lineage)) ?? null });
    },
    async peerClaim(request) {
      const { params, body } = request;
      checkMetadata(body.metadata);
      if (params.volume !== body.volume)
        throw new LongshoreError("BadRequest", `volume: ${body.volume} in the body, ${params.volume} in the path`);
      return found(await peerOf(request).claim(body));
    },
    peerRenew: (request) => done(peerOf(request).renew(targetOf(request))),
    async peerPutPlan(request) {
      const { header, ...extras } = request.body;
      return found(await peerOf(request).putPlan(targetOf(request), header, extras));
    },
    async peerPutPlanPage(request) {
      const { page, ...extras } = request.body;
      return found(await peerOf(request).putPlanPage(targetOf(request), page, extras));
    },
    async peerFreeze(request) {
      const { term: _, ...options } = request.body;
      return found(await peerOf(request).freeze(targetOf(request), options));
    },
    peerLaneTicket: async (request) => found(await peerOf(request).laneTicket(targetOf(request), request.body.request)),
    peerStore: async (request) => found(await peerOf(request).store(targetOf(request), request.body.request)),
    peerCommit: async (request) => found(await peerOf(request).commit(targetOf(request), request.body.request)),
    peerAbort: (request) => done(peerOf(request).abort(targetOf(request), { discard: request.body.discard })),
    peerRelease: (request) => done(peerOf(request).release(targetOf(request))),
    peerLocate: async (request) => found(await peerOf(request).locate(request.body)),
    peerPrepare: (request) => done(peerOf(request).prepare(targetOf(request), request.body.request)),
    async peerSettle(request) {
      return found({ report: (await peerOf(request).settle(request.params.volume)) ?? null });
    },
    peerJoinGroupPoint: (request) => done(peerOf(request).joinGroupPoint(request.params.volume, request.body)),
    async peerReportGroup(request) {
      return found({ report: (await peerOf(request).reportGroup(request.params.group)) ?? null });
    },
    async peerClaimGroup(request) {
      const { params, body } = request;
      if (params.group !== body.group)
        throw new LongshoreError("BadRequest", `group: ${body.group} in the body, ${params.group} in the path`);
      return found(await peerOf(request).claimGroup(body));
    },
    peerRenewGroup: (request) => done(peerOf(request).renewGroup(groupOf(request))),
    peerCommitGroup: async (request) =>
      found(await peerOf(request).commitGroup(groupOf(request), request.body.request)),
    peerAbortGroup: (request) => done(peerOf(request).abortGroup(groupOf(request))),
    peerReleaseGroup: (request) => done(peerOf(request).releaseGroup(groupOf(request))),
  };
}

function targetOf({ params, body }: { params: { volume: string }; body: { term: Term } }): PeerTarget {
  return { volume: params.volume, term: body.term };
}

function groupOf({ params, body }: { params: { group: string }; body: { term: Term } }): GroupTarget {
  return { group: params.group, term: body.term };
}
