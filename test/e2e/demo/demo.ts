// `make demo`: a schedule, snapshots, their expiry, the first migration, an increment, a clone that waits while the volume is
// frozen, and everything compared byte by byte, under two real Kubernetes control planes. Ends in PASS or FAIL.
import { join } from "node:path";
import { describe } from "../../../src/domain/errors.ts";
import { onInterrupt } from "../../interrupt.ts";
import { narrator } from "./narrator.ts";
import { type Migration, summaryHeader, summaryRow, writeReport } from "./report.ts";
import { tellStory } from "./story.ts";
import { openWorld } from "./world.ts";

const root = join(import.meta.dirname, "../../..");
const bytesSentPerChangedMax = 1.05;

async function main(): Promise<boolean> {
  const tell = narrator();
  const closers: (() => Promise<unknown>)[] = [];
  const interrupted = new AbortController();
  onInterrupt(() => {
    interrupted.abort(new Error("interrupted"));
    tell.block("\ninterrupted; taking everything down");
  });
  let migrations: readonly Migration[] = [];
  let failure: string | undefined;
  try {
    tell.title("Two Kubernetes control planes, three storage clusters");
    const world = await openWorld(tell, closers, interrupted.signal);
    migrations = await tellStory(world, tell);
    failure = judge(migrations);
  } catch (error) {
    failure = describe(error);
  }
  for (const close of closers.reverse()) {
    await close().catch((error: unknown) => {
      failure ??= `cleaning up: ${describe(error)}`;
    });
  }
  tell.title("Summary");
  tell.table(summaryHeader, migrations.map(summaryRow));
  const isPass = failure === undefined;
  const file = await writeReport(root, { isPass, failure: failure ?? null, migrations });
  tell.block(`\nreport: ${file.slice(root.length + 1)}, in ${(tell.elapsedMs / 1000).toFixed(1)} s`);
  if (failure !== undefined) tell.block(`what failed: ${failure}`);
  tell.verdict(isPass);
  return isPass;
}

/** What is wrong with the migrations as measured, if anything. */
function judge(migrations: readonly Migration[]): string | undefined {
  for (const { location, to, verified, bytesSent, bytesChanged, mode } of migrations) {
    const which = `the migration of ${to} to ${location}`;
    if (!verified) return `${which} is not the source's snapshot byte for byte`;
    const isIncrement = mode.startsWith("Delta");
    if (isIncrement && bytesSent > bytesChanged * bytesSentPerChangedMax) {
      return `${which} sent ${bytesSent} bytes for ${bytesChanged} changed ones`;
    }
  }
  for (const location of new Set(migrations.map((migration) => migration.location))) {
    const modes = migrations.filter((migration) => migration.location === location).map((migration) => migration.mode);
    const isAsPromised = modes[0]?.startsWith("Allocated") && modes.slice(1).some((mode) => mode.startsWith("Delta"));
    if (!isAsPromised)
      return `${location} got ${modes.join(", ") || "nothing"}; the first should be Allocated, a later one Delta`;
  }
  return migrations.length === 0 ? "nothing was migrated" : undefined;
}

process.exitCode = (await main()) ? 0 : 1;
