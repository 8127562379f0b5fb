// Counts what one job without changes costs, connections warm: syncs of either agent, by strace, and requests from agent to
// agent, by the target's log. In runs of their own, for being watched takes time.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Case, caseOf } from "./cases.ts";
import { runCommand, startCommand } from "./command.ts";
import { dataSetOf } from "./data-set.ts";
import { type LongshoreSession, openLongshore } from "./longshore-tool.ts";
import type { Options } from "./options.ts";
import { tell } from "./progress.ts";
import type { Counts } from "./results.ts";

const syncCalls = "fsync,fdatasync,syncfs,sync_file_range,msync";

/** `undefined` when this machine cannot trace; the reason is printed. */
export async function countEmptyJob(options: Options, folder: string): Promise<Counts | undefined> {
  tell("counting what an empty job costs");
  try {
    await runCommand("strace", ["-qq", "-o", "/dev/null", "true"]);
  } catch (error) {
    tell(`syncs are not counted: ${String(error).split("\n")[0]}`);
    return undefined;
  }
  const measured: Case = caseOf("empty", "small");
  const session = await openLongshore({}, { case: measured, options: { ...options, profile: undefined }, folder });
  try {
    return await countIn(session, measured, folder);
  } finally {
    await session.close();
  }
}

async function countIn(session: LongshoreSession, measured: Case, folder: string): Promise<Counts> {
  const data = dataSetOf({ case: measured, seed: 1, tree: undefined });
  await data.fill(session);
  let step = 0;
  const bringOver = async () => {
    step += 1;
    await session.capture(step);
    await session.transfer(step);
    await session.tidy(step);
  };
  await bringOver();
  await data.warmUp(session, 1);
  await bringOver();
  await bringOver();
  step += 1;
  await session.capture(step);
  const watched = [session.source, session.target];
  const traces = await Promise.all(watched.map((side) => trace(side.agent().pid, join(folder, `${side.name}.strace`))));
  const log = session.target.agent().log;
  const before = readFileSync(log, "utf8").length;
  await session.transfer(step);
  // The last answers are logged when they have left.
  await sleep(500);
  const [syncsAtSource = 0, syncsAtTarget = 0] = await Promise.all(traces.map((stop) => stop()));
  const requests = peerRequests(readFileSync(log, "utf8").slice(before));
  return { case: "empty", syncsAtSource, syncsAtTarget, roundTrips: requests.length, requests };
}

/** Follows all threads of a process; what it gives ends that, and answers how many syncs there were. */
async function trace(pid: number, file: string): Promise<() => Promise<number>> {
  const tracer = startCommand("strace", ["-f", "-qq", "-e", `trace=${syncCalls}`, "-o", file, "-p", String(pid)]);
  const isAttached = () => /^TracerPid:\t[1-9]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  for (let tries = 0; !isAttached(); tries++) {
    if (tries === 100) throw new Error(`strace does not attach to ${pid}`);
    await sleep(50);
  }
  // Threads are attached to one after the other.
  await sleep(500);
  return async () => {
    const gone = new Promise((resolve) => tracer.once("close", resolve));
    tracer.kill("SIGINT");
    await gone;
    return existsSync(file) ? syncsIn(readFileSync(file, "utf8")) : 0;
  };
}

/** Calls that were begun, in the output of strace; one that was interrupted by another thread's is told in two lines. */
export function syncsIn(text: string): number {
  return text.split("\n").filter((line) => /^\d+\s+(?:fsync|fdatasync|syncfs|sync_file_range|msync)\(/.test(line))
    .length;
}

/** The requests of peers in an agent's log, as METHOD PATH with names left out. */
export function peerRequests(log: string): string[] {
  return log.split("\n").flatMap((line) => {
    if (!line.startsWith("{")) return [];
    const { method, path } = JSON.parse(line) as { method?: string; path?: string };
    return method !== undefined && path?.startsWith("/v1/peer") ? [`${method} ${withoutNames(path)}`] : [];
  });
}

function withoutNames(path: string): string {
  return path.replace(/[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}|\bjob-[^/]+/g, "…");
}
