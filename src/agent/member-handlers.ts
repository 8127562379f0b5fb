// /v1/member for the other agents of the own cluster: each request is one call of the MemberApi.
import type { MemberApi } from "../wire/member.ts";
import type { memberRoutes } from "../wire/routes.ts";
import { done, found, type Handlers } from "./handler.ts";

export function memberHandlers(member: MemberApi): Handlers<typeof memberRoutes> {
  return {
    memberMeet: async ({ body }) => found(await member.meet(body)),
    memberAcquaintance: async () => found(await member.acquaintance()),
    memberClaimName: async ({ body }) => found(await member.claimName(body)),
    memberVolumeNames: async ({ body }) => found(await member.volumeNames(body)),
    memberCopies: async ({ body }) => found(await member.copies(body)),
    memberPlace: async ({ body }) => found(await member.place(body)),
    memberDecision: async ({ body }) => found(await member.decision(body)),
    memberOutcome: async ({ body }) => found(await member.memberOutcome(body)),
    memberHoldings: async ({ body }) => found(await member.holdings(body)),
    memberFreeze: ({ body }) => done(member.freeze(body)),
    memberSnapshotFrozen: ({ body }) => done(member.snapshotFrozen(body)),
    memberThaw: async ({ body }) => found(await member.thaw(body)),
    memberConfirmGroup: async ({ body }) => found(await member.confirmGroup(body)),
    memberDiscardGroup: ({ body }) => done(member.discardGroup(body)),
    memberTakeShare: async ({ params, body }) => found(await member.takeShare(params.job, body)),
    async memberShareReport({ params }) {
      return found({ report: (await member.shareReport(params.job)) ?? null });
    },
    memberOrder: async ({ params, body }) => found(await member.order(params.job, body)),
    memberPauseShare: ({ params, body }) => done(member.pauseShare(params.job, body.term)),
  };
}
