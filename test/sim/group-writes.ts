// Whether a group's snapshots are of one moment: its guest writes into one volume after the other, each write after the one
// before it, so the snapshots together must hold all writes up to some moment and none that came later.

export class GroupWrites {
  private readonly breach: (message: string) => void;
  /** In order, by group: which volume each write went to, under the number it left there. */
  private readonly writes = new Map<string, { volume: string; tag: number }[]>();
  /** By group point: what was found in the snapshot of each volume. */
  private readonly cuts = new Map<string, Map<string, number | undefined>>();

  constructor(breach: (message: string) => void) {
    this.breach = breach;
  }

  wrote(group: string, volume: string, tag: number): void {
    const writes = this.writes.get(group) ?? [];
    writes.push({ volume, tag });
    this.writes.set(group, writes);
  }

  /** A snapshot with this group point counts from now on; `tag` is what it holds of the group's writes. */
  snapshotted(
    { groupName, groupPoint }: { groupName: string; groupPoint: string },
    volume: string,
    tag: number | undefined,
  ): void {
    const cut = this.cuts.get(groupPoint) ?? new Map<string, number | undefined>();
    cut.set(volume, tag);
    this.cuts.set(groupPoint, cut);
    const writes = this.writes.get(groupName) ?? [];
    const newest = Math.max(...[...cut.values()].map((each) => each ?? 0));
    for (const [each, held] of cut) {
      const last = writes.findLast((write) => write.volume === each && write.tag <= newest)?.tag ?? 0;
      if (last === held) continue;
      this.breach(
        `group point ${groupPoint} holds write ${newest}, and of ${each} only write ${held} instead of ${last}`,
      );
    }
  }
}
