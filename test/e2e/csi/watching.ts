// What a cluster's objects are and become, by `kubectl get --watch`: each change as it happens, and nothing is polled.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { onInterrupt } from "../../interrupt.ts";
import type { Seen } from "../kube-client.ts";
import { kubectlCommand } from "../kubectl.ts";
import type { TestCluster } from "./test-cluster.ts";

export interface Change {
  /** When it was heard of here, in milliseconds since 1970. */
  readonly atMs: number;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: Seen;
}

export interface Selection {
  /** As kubectl knows it: `pvc`, `migrationjobs`. */
  readonly kind: string;
  readonly namespace?: string;
  readonly name?: string;
  /** A label selector. */
  readonly labels?: string;
}

export interface Watch {
  /** From what there is now onwards, until {@link stop}. */
  readonly changes: AsyncIterable<Change>;
  stop(): Promise<void>;
}

const waitMsMax = 400_000;

/** The objects that there are come first, each as ADDED. One that does not exist yet may be named. */
export function watchObjects(cluster: TestCluster, selection: Selection): Watch {
  const { program, env } = kubectlCommand(cluster);
  const options = ["get", ...selected(selection), "--watch", "--output-watch-events", "-o", "json"];
  const child = spawn(program, options, { env, stdio: ["ignore", "pipe", "pipe"] });
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  const ended = once(child, "exit");
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  let isStopped = false;
  return {
    changes: changesOf(child.stdout, () => {
      if (!isStopped) throw new Error(`kubectl ${options.join(" ")} on ${cluster.name} ended: ${said}`);
    }),
    async stop() {
      isStopped = true;
      end(child);
      await ended;
      forget();
    },
  };
}

function end(child: ChildProcess): void {
  if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
}

function selected({ kind, namespace, name, labels }: Selection): string[] {
  return [
    kind,
    ...(namespace === undefined ? [] : ["--namespace", namespace]),
    ...(name === undefined ? [] : [`--field-selector=metadata.name=${name}`]),
    ...(labels === undefined ? [] : [`--selector=${labels}`]),
  ];
}

/** kubectl writes each change as a JSON document of one line. */
async function* changesOf(output: Readable, atEnd: () => void): AsyncGenerator<Change> {
  for await (const line of createInterface({ input: output })) {
    yield { atMs: Date.now(), ...(JSON.parse(line) as Omit<Change, "atMs">) };
  }
  atEnd();
}

export interface Waiting {
  /** What is waited for, for the message when it does not come. */
  readonly what: string;
  readonly timeoutMs?: number;
}

/** Hands over each change until one `isLast`. Tells what there was when that never comes. */
export async function follow(
  cluster: TestCluster,
  selection: Selection,
  { what, timeoutMs = waitMsMax }: Waiting,
  isLast: (change: Change) => boolean,
): Promise<void> {
  const watch = watchObjects(cluster, selection);
  const last = new Map<string, string>();
  const wait = async () => {
    for await (const change of watch.changes) {
      last.set(change.object.metadata.name, JSON.stringify(change.object.status));
      if (isLast(change)) return;
    }
  };
  const timer = Promise.withResolvers<void>();
  const timeout = setTimeout(() => {
    const seen = [...last].map(([name, status]) => `${name} ${status}`).join("\n");
    const where = selected(selection).join(" ");
    timer.reject(new Error(`${cluster.name}: ${where}: no ${what} in ${timeoutMs} ms; last:\n${seen.slice(-6_000)}`));
  }, timeoutMs);
  try {
    await Promise.race([wait(), timer.promise]);
  } finally {
    clearTimeout(timeout);
    await watch.stop();
  }
}

/** Waits until an object is there and `holds` of it; gives it. */
export async function until(
  cluster: TestCluster,
  selection: Selection & { readonly name: string },
  what: string,
  holds: (object: Seen) => boolean,
): Promise<Seen> {
  return untilOne(cluster, selection, what, holds);
}

/** Waits until `holds` of one of the objects that are selected; gives it. */
export async function untilOne(
  cluster: TestCluster,
  selection: Selection,
  what: string,
  holds: (object: Seen) => boolean,
): Promise<Seen> {
  let found: Seen | undefined;
  await follow(cluster, selection, { what }, ({ type, object }) => {
    if (type === "DELETED" || !holds(object)) return false;
    found = object;
    return true;
  });
  if (found === undefined) throw new Error(`the wait for ${what} was broken off`);
  return found;
}

/** When each of these claims was first seen bound, in milliseconds since 1970; resolves when all of them were. */
export async function boundTimes(
  cluster: TestCluster,
  namespace: string,
  names: readonly string[],
  timeoutMs: number = waitMsMax,
): Promise<ReadonlyMap<string, number>> {
  const bound = new Map<string, number>();
  const waiting = { what: `claims bound: ${names.join(", ")}`, timeoutMs };
  await follow(cluster, { kind: "pvc", namespace }, waiting, ({ atMs, object: { metadata, status } }) => {
    if (status?.phase === "Bound" && !bound.has(metadata.name)) bound.set(metadata.name, atMs);
    return names.every((name) => bound.has(name));
  });
  return new Map(names.map((name) => [name, bound.get(name) ?? 0]));
}
