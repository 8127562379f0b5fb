// Runs a program of the host for a tool: its output when it ends well, an error with what it said otherwise.
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);
const outputBytesMax = 1 << 28;

export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** A program of the host failed; the message has its last words. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/** What the program wrote to its standard output. Throws {@link CommandError}. */
export async function runCommand(
  program: string,
  args: readonly string[],
  { cwd, env }: CommandOptions = {},
): Promise<string> {
  try {
    const where = { ...(cwd !== undefined && { cwd }), env: { ...process.env, ...env } };
    const { stdout } = await run(program, [...args], { ...where, maxBuffer: outputBytesMax });
    return stdout;
  } catch (cause) {
    const { stderr = "", message } = cause as Error & { stderr?: string };
    const said = stderr.trim().split("\n").slice(-10).join("\n");
    throw new CommandError(`${program} ${args[0] ?? ""} failed: ${said === "" ? message : said}`, { cause });
  }
}
