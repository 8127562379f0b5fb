// A claim whose clone waits for a thaw → Events on the claim, for tenants see their claims, and neither our kinds nor the agents.
// It is found by its UID, which is in the clone's name, so that one made anew under the name is told nothing of the old one's.
import type { PersistentVolumeClaim } from "../api/core.ts";
import { eventReason, metadataKey } from "../api/names.ts";
import { volumeNameOfClaim } from "../domain/names.ts";
import { type AwaitedVolume, decideThawNews, type ThawNews, type WaitingClone } from "../domain/thaw-news.ts";
import { again, type Controller, type EventNote, type Key, type Outcome, settled } from "../kube/cluster.ts";
import type { CloneView } from "../wire/schemas.ts";
import { findOne, type Held } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { PersistentVolumeClaims } from "./kinds.ts";
import { parseTime } from "./status-parts.ts";

export function waitingClaimController(deps: ControllerDeps): Controller {
  return {
    name: controllerName.waitingClaim,
    kind: PersistentVolumeClaims,
    reconcile: async (key) => reconcile(key, deps),
  };
}

/** The transfer's progress is looked at in what is known anyway; nobody is asked for it. */
const lookEveryMs = 2_000;

function reconcile(key: Key, deps: ControllerDeps): Outcome {
  const seen = observe(key, deps);
  if (seen === undefined) return settled;
  const news = decideThawNews(seen.clone, seen.volume, deps.clock.nowMs());
  if (news !== undefined) deps.cluster.event(seen.claim, noteOf(news));
  return seen.clone.state === "Waiting" ? again(lookEveryMs) : settled;
}

interface Seen {
  readonly claim: PersistentVolumeClaim;
  readonly clone: WaitingClone;
  readonly volume: AwaitedVolume | undefined;
}

/** `undefined` for a claim that is gone or going, and for one that no clone was asked for. */
function observe(key: Key, { cluster, agents }: ControllerDeps): Seen | undefined {
  const claim = cluster.get(PersistentVolumeClaims, key);
  if (claim === undefined || claim.metadata.deletionTimestamp !== undefined) return undefined;
  const held = findOne(agents, "clones", volumeNameOfClaim(claim.metadata.uid));
  if (held === undefined || !isFor(claim, held.view)) return undefined;
  return { claim, ...waitOf(held) };
}

/** What the clone says of its claim, where it says anything, is this one. */
function isFor({ metadata }: PersistentVolumeClaim, { spec }: CloneView): boolean {
  const { [metadataKey.claimNamespace]: namespace, [metadataKey.claimName]: name } = spec.metadata ?? {};
  const isNamespace = namespace === undefined || namespace === metadata.namespace;
  return isNamespace && (name === undefined || name === metadata.name);
}

function waitOf({ agent, view }: Held<CloneView>): Pick<Seen, "clone" | "volume"> {
  const volume = agent.migratedVolumes.get(view.spec.migratedVolume);
  const point = volume?.points.find(({ pointId }) => pointId === view.pointId);
  return {
    clone: {
      state: view.state,
      requestedMs: Date.parse(view.requestedAt),
      servedMs: view.servedAt === null ? undefined : Date.parse(view.servedAt),
      sourceTime: view.sourceTime ?? undefined,
      committedMs: parseTime(point?.committedAt),
    },
    volume: volume && { name: volume.name, state: volume.state, transfer: volume.transfer ?? undefined },
  };
}

function noteOf({ kind, occasion, message }: ThawNews): EventNote {
  const reason = kind === "waiting" ? eventReason.waitingForThaw : eventReason.thawed;
  return { type: "Normal", reason, message, occasion };
}
