// `longshore node`: the agents of the cluster, and the word of a person that one of them will not come back.
import type { Command } from "commander";
import type { Member } from "../wire/schemas.ts";
import { type Asking, type ConnectionOptions, connected, withAgent } from "./connection.ts";
import type { Streams } from "./streams.ts";
import { type Column, renderTable, stateText } from "./table.ts";

export function addNodeCommands(program: Command, streams: Streams): void {
  const node = program.command("node").description("The storage nodes of the cluster, and the agent of each.");
  connected(node.command("list").description("All nodes, as the agent asked sees them.")).action(
    (options: ConnectionOptions) =>
      withAgent(options, streams, async (asking) => {
        const { members, isAcquainted } = await asking.api.describe();
        if (isAcquainted === false) asking.err("warning: this agent is new and does not know yet who else there is\n");
        asking.show(members, () => renderTable(columns(asking), members, "none"));
      }),
  );
  connected(
    node
      .command("forget <agent-id>")
      .description("Say that an agent and the data it had will not come back. This cannot be undone."),
  ).action((agentId: string, options: ConnectionOptions) =>
    withAgent(options, streams, async ({ api, show }) => {
      await api.forgetMember(agentId);
      show(
        { forgotten: agentId },
        () => `agent ${agentId} is forgotten; what it had is migrated anew by the next jobs\n`,
      );
    }),
  );
}

function columns(asking: Asking): Column<Member>[] {
  return [
    { title: "NODE", of: ({ node }) => node },
    { title: "AGENT", of: ({ agentId }) => agentId },
    { title: "STATE", of: ({ state = "alive" }) => stateText(state, asking) },
    { title: "ADDRESS", of: ({ address }) => address },
    { title: "LANES", of: ({ laneAddress }) => laneAddress },
  ];
}
