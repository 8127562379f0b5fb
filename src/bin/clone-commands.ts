// `longshore clone create`: the clones of a whole group, all of one moment.
import type { Command } from "commander";
import { type CloneSetSpec, putCloneSet } from "../wire/clone-set.ts";
import type { CloneView } from "../wire/schemas.ts";
import { type Asking, type ConnectionOptions, connected, withAgent } from "./connection.ts";
import type { Streams } from "./streams.ts";
import { type Column, renderTable } from "./table.ts";

type Options = ConnectionOptions & Omit<CloneSetSpec, "name">;

/** `columns`: how the table of clones is shown elsewhere. */
export function addCloneCommands(
  clone: Command,
  streams: Streams,
  columns: (asking: Asking) => readonly Column<CloneView>[],
): void {
  connected(
    clone
      .command("create <name>")
      .description("Clone all volumes of a group as of one moment, as <name>-<volume>; again: the same clones."),
  )
    .requiredOption("--group <group>", "the group that arrived here")
    .option("--source <source>", "its MigrationSource, if several clusters have a group of that name")
    .option("--point <id>", "latest, or the id of a group point", "latest")
    .action((name: string, { group, source, point, ...options }: Options) =>
      withAgent(options, streams, async (asking) => {
        const set = await putCloneSet(asking.api, { name, group, source, point });
        asking.show(
          set,
          () => `group point ${set.groupPoint}\n\n${renderTable(columns(asking), set.clones, "no volumes")}`,
        );
      }),
    );
}
