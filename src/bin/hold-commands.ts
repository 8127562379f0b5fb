// `longshore hold`: why snapshots and points are kept, and how to let go of one knowingly.
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { renderBytes } from "../domain/quantity.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { Hold } from "../wire/schemas.ts";
import { type ConnectionOptions, connected, withAgent } from "./connection.ts";
import type { Streams } from "./streams.ts";
import { ageOf, type Column, renderTable } from "./table.ts";

/** A hold with what it keeps. */
interface HoldRow extends Hold {
  readonly volume: string;
  readonly kept: string;
  readonly sizeBytes: number;
}

export function addHoldCommands(program: Command, streams: Streams): void {
  const hold = program.command("hold").description("Why snapshots may not be deleted yet.");
  connected(hold.command("list").description("All holds, oldest first.")).action((options: ConnectionOptions) =>
    withAgent(options, streams, async ({ api, show }) => {
      const rows = await holdsOf(api);
      show(rows, () => renderTable(columns(), rows, "no holds"));
    }),
  );
  connected(
    hold.command("put <volume> <snapshot> <owner>").description("Keep a snapshot until the hold is dropped."),
  ).action((volume: string, snapshot: string, owner: string, options: ConnectionOptions) =>
    withAgent(options, streams, async ({ api, show }) => {
      const kept = await api.putHold(volume, snapshot, owner);
      show(kept, () => `snapshot ${snapshot} of ${volume} is held by ${owner}\n`);
    }),
  );
  connected(hold.command("drop <volume> <snapshot> <owner>").description("Drop a user's hold."))
    .option("--reason <reason>", "user, or base: the next migration to that location is then a full one", "user")
    .action((volume: string, snapshot: string, owner: string, options: ConnectionOptions & { reason: string }) =>
      withAgent(options, streams, async ({ api, show }) => {
        const { reason } = options;
        if (reason !== "user" && reason !== "base")
          throw new LongshoreError("BadRequest", `--reason ${reason}: only user and base holds can be dropped by hand`);
        await api.removeHold(volume, snapshot, { reason, owner });
        show({ dropped: { volume, snapshot, reason, owner } }, () => `dropped the ${reason} hold of ${owner}\n`);
      }),
    );
}

async function holdsOf(api: AgentApi): Promise<HoldRow[]> {
  const [volumes, migrated] = await Promise.all([api.listVolumes(), api.listMigratedVolumes()]);
  const snapshots = volumes.items.flatMap(({ snapshots }) =>
    snapshots.flatMap(({ volume, name, sizeBytes, holds }) =>
      holds.map((hold) => ({ ...hold, volume, kept: name, sizeBytes })),
    ),
  );
  const points = migrated.items.flatMap(({ name, points }) =>
    points.flatMap(({ pointId, sizeBytes, holds }) =>
      holds.map((hold) => ({ ...hold, volume: name, kept: pointId, sizeBytes })),
    ),
  );
  return [...snapshots, ...points].sort((a, b) => a.since.localeCompare(b.since));
}

function columns(): Column<HoldRow>[] {
  const nowMs = systemClock.nowMs();
  return [
    { title: "VOLUME", of: (row) => row.volume },
    { title: "KEPT", of: (row) => row.kept },
    { title: "REASON", of: (row) => row.reason },
    { title: "OWNER", of: (row) => row.owner },
    { title: "SIZE", of: (row) => renderBytes(row.sizeBytes), align: "right" },
    { title: "AGE", of: (row) => ageOf(row.since, nowMs), align: "right" },
  ];
}
