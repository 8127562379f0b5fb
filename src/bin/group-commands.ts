// `longshore group snapshot`: volumes that are snapshotted at one moment.
import type { Command } from "commander";
import type { GroupSnapshotView, SnapshotView } from "../wire/schemas.ts";
import { type ConnectionOptions, connected, withAgent } from "./connection.ts";
import type { Streams } from "./streams.ts";
import { type Column, renderTable } from "./table.ts";

export function addGroupCommands(group: Command, streams: Streams): void {
  connected(
    group
      .command("snapshot <group> <name>")
      .description("Snapshot volumes at one moment; the same name again is the same snapshot.")
      .requiredOption("--volume <name...>", "the volumes, wherever in the cluster they are"),
  ).action((name: string, snapshot: string, options: ConnectionOptions & { volume: string[] }) =>
    withAgent(options, streams, async ({ api, show }) => {
      const taken = await api.putGroupSnapshot(name, snapshot, { volumes: options.volume });
      show(taken, () => detail(taken));
    }),
  );
}

function detail({ group, name, groupPoint, snapshots, frozenMs }: GroupSnapshotView): string {
  const held = `writers were held up for ${Math.ceil(frozenMs)} ms`;
  return `snapshot ${name} of group ${group} has point ${groupPoint}; ${held}\n${renderTable(columns, snapshots, "none")}`;
}

const columns: Column<SnapshotView>[] = [
  { title: "VOLUME", of: ({ volume }) => volume },
  { title: "GENERATION", of: ({ generation }) => generation, align: "right" },
  { title: "POINT", of: ({ pointId }) => pointId },
  { title: "STATE", of: ({ state }) => state },
  { title: "TAKEN", of: ({ createdAt }) => createdAt },
];
