// Seeds that failed once, each with what was wrong. They are run before all others.

export interface KeptSeed {
  readonly seed: number;
  /** What went wrong in it before it was mended. */
  readonly once: string;
}

export const keptSeeds: readonly KeptSeed[] = [
  { seed: 2, once: "a participant that lost its target was taken for silent, and ordered the same step for ever" },
  { seed: 10, once: "files put back without their rows left a vote whose image was gone; its point was lost at once" },
  { seed: 18, once: "a clone removed while the journal was full stayed half deleted until the next start" },
  {
    seed: 145,
    once: "a doubled request to snapshot a frozen group took another snapshot, after the thaw, and it counted",
  },
  { seed: 746, once: "a thaw whose figures could not be recorded on a full disk kept its volumes locked for ever" },
  {
    seed: 1244,
    once: "a snapshot that could not be undone while the journal was full stayed half made until the next start",
  },
  {
    seed: 11_948,
    once: "a group's snapshot was confirmed for a volume whose part of it had gone with an older image of the disk",
  },
  {
    seed: 34_202,
    once: "staging nobody went on with stayed for a day more after the wall clock was set back by a day",
  },
];
