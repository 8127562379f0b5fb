// What is measured: the cases with their sizes, at full size and in the small version that only checks correctness.

export const caseNames = [
  "full-2g",
  "full-4g",
  "incr-0.1pct-4g",
  "incr-1pct-4g",
  "incr-10pct-4g",
  "tree-upgrade",
  "small-100",
  "empty",
  "empty-cold",
] as const;
export type CaseName = (typeof caseNames)[number];

export const toolNames = [
  "longshore-tls",
  "longshore-tls-noverify",
  "longshore-kernel",
  "longshore-kernel-noverify",
  "btrfs",
  "rsync",
  "restic",
  "floor-kernel",
  "floor-kernel-hash",
  "floor-tls",
  "floor-tls-hash",
] as const;
export type ToolName = (typeof toolNames)[number];

/** What is written to the volumes before each run. `tree`: what the upgrade of a package tree changes; `all`: the copy starts anew. */
export type Change =
  | { readonly kind: "all" }
  | { readonly kind: "scattered"; readonly blocksOfVolume: number }
  | { readonly kind: "tree" }
  | { readonly kind: "nothing" };

export interface Case {
  readonly name: CaseName;
  readonly volumes: number;
  readonly volumeBytes: number;
  readonly change: Change;
  /** Whether the agents are started anew before each run. */
  readonly isCold: boolean;
  /**
   * Changes brought over before those that are timed. Where a run takes a fraction of a second there are more of them: else it
   * would be measured how long a program takes to get into its stride (the first jobs of an agent took twice as long as the
   * tenth), where users have agents and daemons that run for weeks.
   */
  readonly warmUps: number;
}

export type Size = "full" | "small";

const warmUpsOfShort = 5;

export const blockBytes = 4096;
const [mebibyte, gibibyte] = [2 ** 20, 2 ** 30];

/** The blocks that a fraction of a volume is, rounded down. */
function scattered(volumeBytes: number, fraction: number): Change {
  return { kind: "scattered", blocksOfVolume: Math.floor((volumeBytes / blockBytes) * fraction) };
}

export function caseOf(name: CaseName, size: Size): Case {
  const isFull = size === "full";
  const bytes = (full: number, small: number) => (isFull ? full : small) * mebibyte;
  const one = { name, volumes: 1, isCold: false, warmUps: 1 };
  const large = bytes(4096, 32);
  switch (name) {
    case "full-2g":
      return { ...one, volumeBytes: bytes(2048, 16), change: { kind: "all" } };
    case "full-4g":
      return { ...one, volumeBytes: large, change: { kind: "all" } };
    case "incr-0.1pct-4g":
      return { ...one, volumeBytes: large, change: scattered(large, 0.001), warmUps: warmUpsOfShort };
    case "incr-1pct-4g":
      return { ...one, volumeBytes: large, change: scattered(large, 0.01) };
    case "incr-10pct-4g":
      return { ...one, volumeBytes: large, change: scattered(large, 0.1) };
    case "tree-upgrade":
      return { ...one, volumeBytes: isFull ? gibibyte + gibibyte / 2 : large, change: { kind: "tree" } };
    case "small-100": {
      const volumes = isFull ? 100 : 6;
      return {
        name,
        volumes,
        volumeBytes: bytes(16, 4),
        change: { kind: "scattered", blocksOfVolume: 16 },
        isCold: false,
        warmUps: 1,
      };
    }
    case "empty":
      return { ...one, volumeBytes: bytes(1024, 32), change: { kind: "nothing" }, warmUps: warmUpsOfShort };
    case "empty-cold":
      return { ...one, volumeBytes: bytes(1024, 32), change: { kind: "nothing" }, isCold: true };
  }
}

/** Why a tool has no row in a case; `undefined` when it has one. */
export function absence(tool: ToolName, { name, isCold }: Case): string | undefined {
  if (tool === "restic" && name !== "incr-1pct-4g") return "restic is measured in one case, incr-1pct-4g";
  if (isCold && !tool.startsWith("longshore")) return "it keeps no connections, so it is always cold: see empty";
  return undefined;
}
