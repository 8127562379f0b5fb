// How long a transfer would take, judged by those that were made before.

export interface PastTransfer {
  readonly bytes: number;
  readonly durationMs: number;
}

/**
 * Seconds for `bytes`, by what earlier transfers to the same location took: a fixed part, as the shortest of them shows, and a
 * rate, as all of them together show; no faster than the limit. Undefined when there was none that moved anything.
 */
export function estimatedSeconds(
  bytes: number,
  past: readonly PastTransfer[],
  bytesPerSecondMax: number | undefined,
): number | undefined {
  const moved = past.filter((transfer) => transfer.bytes > 0 && transfer.durationMs > 0);
  if (moved.length === 0) return undefined;
  const sum = (of: (transfer: PastTransfer) => number) => moved.reduce((total, transfer) => total + of(transfer), 0);
  const bytesPerMs = sum((transfer) => transfer.bytes) / sum(({ durationMs }) => durationMs);
  const fixedMs = Math.min(...moved.map(({ durationMs }) => durationMs));
  const byRate = Math.max(fixedMs, bytes / bytesPerMs) / 1000;
  return bytesPerSecondMax === undefined ? byRate : Math.max(byRate, bytes / bytesPerSecondMax);
}
