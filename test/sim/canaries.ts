// Deliberate mutants of the engine. The simulator must catch each of them within the seeds of a normal run: what it could not
// catch it would not find either.

export interface Edit {
  /** Under src/. */
  readonly file: string;
  /** Stands there exactly once. */
  readonly search: string;
  readonly replacement: string;
}

export interface Canary {
  readonly name: string;
  /** What the mutant does wrong. */
  readonly wrong: string;
  readonly edits: readonly Edit[];
}

export const canaries: readonly Canary[] = [
  {
    name: "commit without Stored",
    wrong: "units that arrived damaged are not sent again, and nobody counts what is stored before the commit",
    edits: [
      { file: "engine/units-sender.ts", search: "queue.again(result.damaged);", replacement: "" },
      { file: "engine/decisions.ts", search: "stored === header.unitCount", replacement: "stored >= 0" },
    ],
  },
  {
    name: "equal epoch accepted",
    wrong: "a term of the same epoch counts, whoever it was granted to",
    edits: [
      {
        file: "engine/leases.ts",
        search: "return row.epoch === term.epoch && row.nonce === term.nonce;",
        replacement: "return row.epoch === term.epoch;",
      },
    ],
  },
  {
    name: "lower epoch accepted",
    wrong: "a term that was superseded still counts",
    edits: [
      {
        file: "engine/leases.ts",
        search: "return row.epoch === term.epoch && row.nonce === term.nonce;",
        replacement: "return row.epoch >= term.epoch;",
      },
    ],
  },
  {
    name: "base moved early",
    wrong: "the source moves its base when it asks for the commit, not when it is told of it",
    edits: [
      {
        file: "engine/share.ts",
        search: "await this.api.commit(this.target, {",
        replacement: "this.moveBase(); await this.api.commit(this.target, {",
      },
    ],
  },
  {
    name: "base by number instead of id",
    wrong: "the source takes its point of the same generation number for the target's point",
    edits: [
      {
        file: "engine/planning.ts",
        search: "const points = await presentPoints(this.core, row.owner, new Set([...targetPoints, row.toId]));",
        replacement: "const points = await presentPoints(this.core, row.owner);",
      },
      {
        file: "engine/planning.ts",
        search: "sourcePoints: points.map((point) => point.pointId),",
        replacement: `sourcePoints: points.map((point) => point.pointId === row.toId ? row.toId :
          report.points.find(({ generation }) => generation === point.generation)?.pointId ?? point.pointId),`,
      },
      {
        file: "engine/planning.ts",
        search: "const base = this.holdBase(row, choice.pointId);",
        replacement: `const there = report.points.find(({ pointId }) => pointId === choice.pointId);
        const own = points.find(({ generation }) => generation === there?.generation);
        const base = { ...this.holdBase(row, own.pointId), pointId: choice.pointId };`,
      },
    ],
  },
  {
    name: "hold dropped early",
    wrong: "the source lets go of the snapshot once the target has the plan",
    edits: [
      {
        file: "engine/share.ts",
        search: "const frozen = await this.putPlan(this.header(subject, planned), plan.units);",
        replacement: `const frozen = await this.putPlan(this.header(subject, planned), plan.units);
        this.core.journal.transaction(() => this.core.journal.run(
          "DELETE FROM holds WHERE owner = ? AND reason = 'job'", subject.row.owner));`,
      },
    ],
  },
  {
    name: "hold on a deleting row",
    wrong: "a snapshot that is on its way out can be held",
    edits: [
      {
        file: "engine/points.ts",
        search: 'if (point.state !== "sealed") {\n    const code',
        replacement: 'if (point.state === "creating") {\n    const code',
      },
    ],
  },
  {
    name: "thaw before commit",
    wrong: "the target opens the newest point while it seals the next one",
    edits: [
      {
        file: "engine/decisions.ts",
        search: "await closeLanes(this.core, row.uid);",
        replacement: `await closeLanes(this.core, row.uid);
        this.core.journal.transaction(() => this.parts.terms.thaw(row.uid));`,
      },
    ],
  },
  {
    name: "resume past the durable unit",
    wrong: "units are recorded before they are on the disk, and believed after a restart",
    edits: [
      {
        file: "engine/staging-session.ts",
        search: "await this.punch(this.unit(index));\n    await this.staging.sync();",
        replacement: "await this.punch(this.unit(index));",
      },
      { file: "engine/staging-check.ts", search: "(await this.isAsRecorded())", replacement: "true" },
    ],
  },
  {
    name: "self-abort after commit",
    wrong: "a target whose coordinator falls silent after the commit takes the point back",
    edits: [
      {
        file: "engine/decisions.ts",
        search: "this.core.journal.transaction(() => terms.takeAway(row));",
        replacement: `this.core.journal.transaction(() => {
          this.core.journal.run(
            "DELETE FROM points WHERE owner = ? AND pointId IN (SELECT toId FROM commits WHERE owner = ? AND epoch = ?)",
            row.uid, row.uid, row.epoch);
          terms.takeAway(row);
        });`,
      },
    ],
  },
  {
    name: "prepared member aborts by itself",
    wrong: "a member that has voted ends its term when its coordinator is silent",
    edits: [
      {
        file: "engine/target.ts",
        search: "if (this.terms.isAlive(row.uid) || this.migrated.vote(row.uid) !== undefined) continue;",
        replacement: "if (this.terms.isAlive(row.uid)) continue;",
      },
      {
        file: "engine/decisions.ts",
        search: "if (migrated.vote(row.uid) !== undefined) return;",
        replacement: "",
      },
    ],
  },
  {
    name: "staging reused for another to",
    wrong: "units stored for one point count for the next one",
    edits: [
      {
        file: "engine/migrated.ts",
        search: 'for (const table of ["storedUnits", "planPages", "staging"]) {',
        replacement: 'for (const table of ["planPages", "staging"]) {',
      },
      {
        file: "engine/staging-area.ts",
        search: 'journal.run("DELETE FROM storedUnits WHERE owner = ?", row.uid);',
        replacement: "",
      },
    ],
  },
  {
    name: "punch units left out",
    wrong: "what was discarded at the source stays at the target",
    edits: [
      {
        file: "engine/staging-session.ts",
        search: "for (const { index } of expected) await this.punch(this.unit(index));",
        replacement: "",
      },
    ],
  },
  {
    name: "late write after abort",
    wrong: "lanes and image stay open when the term ends",
    edits: [
      {
        file: "engine/staging-area.ts",
        search: "await closeLanes(this.core, uid);",
        replacement: "",
      },
      { file: "engine/staging-area.ts", search: "await session?.close();", replacement: "" },
    ],
  },
  {
    name: "clone from staging",
    wrong: "a clone is made of the image that a transfer writes into",
    edits: [
      {
        file: "engine/clones.ts",
        search: "storage.clone({ volume: point.owner, ...sealedPoint(point) }, { volume, sizeBytes });",
        replacement: `storage.clone({ volume: point.owner, ...sealedPoint(point),
          point: this.migrated.staging(point.owner)?.toId ?? point.file }, { volume, sizeBytes });`,
      },
    ],
  },
  {
    name: "waiting clone served from the wrong point",
    wrong: "who asked for the newest point is given the oldest",
    edits: [
      {
        file: "engine/clones.ts",
        search: "const newest = points.at(-1);",
        replacement: "const newest = points.at(0);",
      },
    ],
  },
];
