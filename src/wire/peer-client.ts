// PeerApi over HTTP: a coordinator's view of a target cluster.
import { LongshoreError } from "../domain/errors.ts";
import type { Credentials } from "./credentials.ts";
import { type ClientTimeouts, type HttpClient, openHttpClient } from "./http-client.ts";
import type { GroupTarget, PeerApi, PeerGroupApi, PeerTarget } from "./peer.ts";
import { peerRoutes as routes } from "./routes.ts";

export interface PeerClientOptions {
  /** host:port; tried in turn, beginning with the last that answered. */
  readonly seeds: readonly string[];
  /** PEM of the target cluster's CA. */
  readonly caBundle: string;
  /** Without it, the first cluster that answers under the bundle is held on to. */
  readonly expectedClusterUid?: string | undefined;
  /** The one agent that is meant, where it is not any of the cluster. */
  readonly agentId?: string | undefined;
  readonly credentials: Credentials;
  readonly timeouts?: Partial<ClientTimeouts>;
}

/**
 * Throws what the target threw (`NotConsented`, `TermLost`, ...), `Unreachable` when no seed answers, `Untrusted` when what
 * answers is not of the bundle or not of the cluster expected, and `StreamTorn` or `Timeout` in the middle of a call.
 */
export function openPeerClient(options: PeerClientOptions): PeerApi & { close(): Promise<void> } {
  const { seeds, caBundle, expectedClusterUid, agentId, credentials, timeouts } = options;
  const http = openHttpClient({
    addresses: seeds,
    credentials,
    trustedCa: () => caBundle,
    clusterUid: expectedClusterUid,
    agentId,
    greeting: routes.peerHello,
    ...(timeouts && { timeouts }),
  });
  const seedNames = seeds.join(", ");
  return {
    async hello() {
      const hello = present(await http.call(routes.peerHello, {}), seedNames);
      if (hello.clusterUid === http.clusterUid) return hello;
      const claim = `says it is of cluster ${hello.clusterUid}, its certificate says ${http.clusterUid}`;
      throw new LongshoreError("Untrusted", `what answers at ${seedNames} ${claim}`);
    },
    claim: async (body) =>
      present(await http.call(routes.peerClaim, { params: { volume: body.volume }, body }), seedNames),
    async report(volume, lineage) {
      const asked = { params: { volume }, query: lineage ?? {} };
      const { report } = present(await http.call(routes.peerReport, asked), seedNames);
      return report ?? undefined;
    },
    async renew(target) {
      await http.call(routes.peerRenew, { ...about(target), body: { term: target.term } });
    },
    async putPlan(target, header, extras) {
      const body = { term: target.term, header, ...extras };
      return present(await http.call(routes.peerPutPlan, { ...about(target), body }), seedNames);
    },
    async putPlanPage(target, page, extras) {
      const body = { term: target.term, page, ...extras };
      return present(await http.call(routes.peerPutPlanPage, { ...about(target), body }), seedNames);
    },
    freeze: async (target, options) =>
      present(
        await http.call(routes.peerFreeze, { ...about(target), body: { term: target.term, ...options } }),
        seedNames,
      ),
    laneTicket: async (target, request) =>
      present(
        await http.call(routes.peerLaneTicket, { ...about(target), body: { term: target.term, request } }),
        seedNames,
      ),
    store: async (target, request) =>
      present(await http.call(routes.peerStore, { ...about(target), body: { term: target.term, request } }), seedNames),
    commit: async (target, request) =>
      present(
        await http.call(routes.peerCommit, { ...about(target), body: { term: target.term, request } }),
        seedNames,
      ),
    async abort(target, { discard }) {
      await http.call(routes.peerAbort, { ...about(target), body: { term: target.term, discard } });
    },
    async release(target) {
      await http.call(routes.peerRelease, { ...about(target), body: { term: target.term } });
    },
    ...groupCalls(http, seedNames),
    close: () => http.close(),
  };
}

function groupCalls(http: HttpClient, seedNames: string): PeerGroupApi {
  const ofGroup = ({ group }: GroupTarget) => ({ params: { group } });
  return {
    locate: async (body) => present(await http.call(routes.peerLocate, { body }), seedNames),
    async prepare(target, request) {
      await http.call(routes.peerPrepare, { ...about(target), body: { term: target.term, request } });
    },
    async settle(volume) {
      const { report } = present(await http.call(routes.peerSettle, { params: { volume } }), seedNames);
      return report ?? undefined;
    },
    async joinGroupPoint(volume, body) {
      await http.call(routes.peerJoinGroupPoint, { params: { volume }, body });
    },
    async reportGroup(group) {
      const { report } = present(await http.call(routes.peerReportGroup, { params: { group } }), seedNames);
      return report ?? undefined;
    },
    claimGroup: async (body) =>
      present(await http.call(routes.peerClaimGroup, { params: { group: body.group }, body }), seedNames),
    async renewGroup(target) {
      await http.call(routes.peerRenewGroup, { ...ofGroup(target), body: { term: target.term } });
    },
    commitGroup: async (target, request) =>
      present(
        await http.call(routes.peerCommitGroup, { ...ofGroup(target), body: { term: target.term, request } }),
        seedNames,
      ),
    async abortGroup(target) {
      await http.call(routes.peerAbortGroup, { ...ofGroup(target), body: { term: target.term } });
    },
    async releaseGroup(target) {
      await http.call(routes.peerReleaseGroup, { ...ofGroup(target), body: { term: target.term } });
    },
  };
}

function about({ volume }: PeerTarget) {
  return { params: { volume } };
}

function present<T>(body: T | undefined, where: string): T {
  if (body === undefined) throw new LongshoreError("Unsupported", `${where} answered without a body`);
  return body;
}
