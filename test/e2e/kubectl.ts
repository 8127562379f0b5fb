// kubectl as a child process: for the control planes of the tests, and for clusters that are given as kubeconfigs.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { controlPlaneAssets } from "./control-plane-program.ts";
import { eventually } from "./process.ts";

export interface KubectlOptions {
  /** Written to standard input, for `-f -`. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Another user than admin. */
  readonly kubeconfig?: string;
}

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

export interface KubectlTarget {
  /** For messages. */
  readonly name: string;
  readonly kubeconfig: string;
  /** A HOME of its own keeps kubectl's discovery cache apart from that of others on the same port. */
  readonly home: string;
}

/** Where `kubectl` and its environment are, for whoever starts it in another way than {@link runKubectl}. */
export function kubectlCommand({ kubeconfig, home }: Omit<KubectlTarget, "name">) {
  return {
    program: join(controlPlaneAssets, "kubectl"),
    env: { ...process.env, HOME: home, KUBECONFIG: kubeconfig },
  };
}

/** Throws an error with its standard error output when it fails. */
export async function runKubectl(
  target: KubectlTarget,
  args: readonly string[],
  options: KubectlOptions = {},
): Promise<Output> {
  const kubeconfig = options.kubeconfig ?? target.kubeconfig;
  const { program, env } = kubectlCommand({ kubeconfig, home: target.home });
  const child = spawn(program, args, { env: { ...env, ...options.env }, stdio: ["pipe", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output.stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    output.stderr += text;
  });
  // kubectl may end without having read its input; its exit status says what was wrong.
  child.stdin.on("error", () => undefined).end(options.input ?? "");
  const status = await new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, killedBy) => resolve(code ?? killedBy));
  });
  if (status === 0) return output;
  throw new Error(`kubectl ${args.join(" ")} on ${target.name} ended with ${status}: ${output.stderr}${output.stdout}`);
}

/**
 * Resolves once these definitions are Established: `crd --all`, or `-f` and where they are written. One that was just made has no
 * conditions, not even an empty list of them, for which kubectl refuses to wait.
 */
export async function areEstablished(
  plane: { kubectl(args: readonly string[]): Promise<Output> },
  ...which: readonly string[]
): Promise<void> {
  const wait = ["wait", "--for=condition=Established", "--timeout=60s", ...which];
  await eventually(`${which.join(" ")} being Established`, () => plane.kubectl(wait));
}
