// What the claim of a clone is told while the clone waits for a thaw: that it waits and for what, how far the transfer is at
// each quarter, and that it is over. Each is an occasion that follows from what there is now, so that whoever tells it again,
// after a restart say, tells nothing new.
import { renderDuration } from "./duration.ts";
import { renderBytes } from "./quantity.ts";

export interface WaitingClone {
  readonly state: "Waiting" | "Ready";
  readonly requestedMs: number;
  readonly servedMs: number | undefined;
  /** Source time of the point that it is of, RFC 3339. */
  readonly sourceTime: string | undefined;
  /** When that point was committed here; `undefined` when that is not known (any more). */
  readonly committedMs: number | undefined;
}

/** The migrated volume that it is to be of. */
export interface AwaitedVolume {
  readonly name: string;
  readonly state: "Empty" | "Available" | "Frozen" | "Undecided";
  readonly transfer: { readonly bytesTotal: number; readonly bytesStored: number } | undefined;
}

export interface ThawNews {
  readonly kind: "waiting" | "thawed";
  /** The same for the same news. */
  readonly occasion: string;
  readonly message: string;
}

/** What there is to tell now; `undefined` when the clone does not wait for a thaw, or has not for some time. */
export function decideThawNews(
  clone: WaitingClone,
  volume: AwaitedVolume | undefined,
  nowMs: number,
): ThawNews | undefined {
  if (clone.state === "Ready") return thawed(clone, nowMs);
  // One that is open is being cloned; if that fails, the CSI driver tells why.
  return volume === undefined || volume.state === "Available" ? undefined : waiting(volume);
}

/** Events are kept for an hour or so: as long as theirs is there for sure, saying it again changes nothing. */
const thawedToldMs = 10 * 60_000;

/** Making a clone takes no longer than this, so one that took longer has waited, if only for a transfer that was given up. */
const cloningMs = 5_000;

function thawed({ requestedMs, servedMs, sourceTime, committedMs }: WaitingClone, nowMs: number): ThawNews | undefined {
  if (servedMs === undefined || nowMs - servedMs > thawedToldMs) return undefined;
  const waitedMs = servedMs - requestedMs;
  const isOfLater = committedMs !== undefined && committedMs > requestedMs;
  if (!isOfLater && waitedMs < cloningMs) return undefined;
  const seconds = renderDuration(Math.max(1, Math.round(waitedMs / 1_000)) * 1_000);
  const message = `The clone is made after ${seconds}, of the point in time ${sourceTime ?? "that was asked for"}.`;
  return { kind: "thawed", occasion: "thawed", message };
}

const quarters = 4;

function waiting({ name, state, transfer }: AwaitedVolume): ThawNews {
  const quarter = transfer === undefined ? 0 : quarterOf(transfer);
  const occasion = quarter === 0 ? "start" : `quarter-${quarter}`;
  return { kind: "waiting", occasion, message: `${situation(name, state, transfer)} ${outlook[state]}` };
}

/** From 0 to 3: all stored is not yet committed. */
function quarterOf({ bytesTotal, bytesStored }: NonNullable<AwaitedVolume["transfer"]>): number {
  if (bytesTotal <= 0) return 0;
  return Math.max(0, Math.min(quarters - 1, Math.floor((quarters * bytesStored) / bytesTotal)));
}

function situation(name: string, state: AwaitedVolume["state"], transfer: AwaitedVolume["transfer"]): string {
  if (transfer === undefined) {
    return state === "Empty"
      ? `Migrated volume ${name} has no point in time yet, and none is on its way at the moment.`
      : `Migrated volume ${name} is frozen.`;
  }
  const { bytesTotal, bytesStored } = transfer;
  const percent = bytesTotal > 0 ? ` (${Math.floor((100 * bytesStored) / bytesTotal)}%)` : "";
  const stored = `${renderBytes(bytesStored)} of ${renderBytes(bytesTotal)} stored${percent}`;
  return `Migrated volume ${name} is frozen while a transfer runs: ${stored}.`;
}

const outlook = {
  Empty: "The claim is bound after the first commit.",
  Available: "The claim is bound at once.",
  Frozen: "The claim is bound when it commits.",
  Undecided: "All has arrived; the claim is bound when it is known whether the group it came with is committed.",
} as const satisfies Record<AwaitedVolume["state"], string>;
