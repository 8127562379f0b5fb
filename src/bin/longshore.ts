#!/usr/bin/env -S MALLOC_ARENA_MAX=2 sh -c '[ -w "$HOME" ] && export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE-$HOME/.cache/longshore/code}"; exec node --max-semi-space-size=8 --disable-warning=ExperimentalWarning "$0" "$@"'
// The one program: an agent, the operator, the CSI driver, the tools for trust between clusters, and what a person asks an
// agent. Three settings keep an agent's memory small, and can be made only before it starts. The C library gives each of its many
// threads an arena of its own, none of which gives back what it once took; V8 lets the part of the heap for young objects grow to
// 32 MiB; and without a place for what it has compiled, Node loads the program that takes the types out of our code into each
// thread, and starts in twice the time. That place is the user's to choose, and there is none without a home that can be written to:
// where a folder cannot be made because its parent is missing, Node may try for ever. The kernel takes 255 bytes of the first line.
import { Command, CommanderError } from "commander";
import { addAgentCommand } from "./agent-command.ts";
import { addCsiCommand } from "./csi-command.ts";
import { exitCodes, reportFailure } from "./failure.ts";
import { addHoldCommands } from "./hold-commands.ts";
import { addJobCommands } from "./job-commands.ts";
import { addNodeCommands } from "./node-commands.ts";
import { addOperatorCommand } from "./operator-command.ts";
import { addPairCommands } from "./pair-commands.ts";
import { addPkiCommands } from "./pki-commands.ts";
import { type Streams, terminalStreams } from "./streams.ts";
import { version } from "./version.ts";
import { addViewCommands } from "./view-commands.ts";

/** Runs one command line; resolves with the exit status. */
export async function runLongshore(words: readonly string[], streams: Streams): Promise<number> {
  const program = new Command("longshore")
    .description("Keeps Kubernetes persistent volumes up to date across clusters, by policy.")
    .version(version)
    .exitOverride()
    .configureOutput({ writeOut: (text) => streams.out(text), writeErr: (text) => streams.err(text) })
    .showHelpAfterError("(see --help)")
    .addHelpText(
      "after",
      `\nExit status: ${Object.values(exitCodes)
        .map(({ code, means }) => `${code} ${means}`)
        .join(", ")}.`,
    );
  for (const add of [
    addAgentCommand,
    addOperatorCommand,
    addCsiCommand,
    addPkiCommands,
    addPairCommands,
    addJobCommands,
    addViewCommands,
    addHoldCommands,
    addNodeCommands,
  ])
    add(program, streams);
  try {
    await program.parseAsync([...words], { from: "user" });
    return streams.exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage.code;
    return reportFailure(error, streams);
  }
}

if (import.meta.main) {
  process.exitCode = await runLongshore(process.argv.slice(2), terminalStreams());
}
