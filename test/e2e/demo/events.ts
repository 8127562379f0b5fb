// Tells what happens at the source's agent as it happens, from its change stream, and holds every snapshot it sees, so that
// the demo can still compare them when they would long have been deleted.
import { codeOf } from "../../../src/domain/errors.ts";
import type { JobView, VolumeView } from "../../../src/wire/schemas.ts";
import type { StorageCluster } from "../storage-cluster.ts";
import { bytesText, type Narrator } from "./narrator.ts";

export const demoHold = "demo";

export interface Watching {
  /** Every job seen to end, in the order of their ends; jobs are forgotten by the operator after a while. */
  ended(): readonly JobView[];
  /** Throws what went wrong while watching. */
  stop(): Promise<void>;
}

export function watchEvents(source: StorageCluster, tell: Narrator): Watching {
  const stop = new AbortController();
  const watcher = new Watcher(source, tell);
  const watching = watcher.run(stop.signal);
  // A failure is thrown by stop(), where it is awaited.
  watching.catch(() => undefined);
  return {
    ended: () => watcher.ended,
    async stop() {
      stop.abort();
      await watching;
    },
  };
}

class Watcher {
  readonly ended: JobView[] = [];
  private readonly source: StorageCluster;
  private readonly tell: Narrator;
  private readonly snapshots = new Map<string, string>();
  private readonly jobs = new Map<string, string>();

  constructor(source: StorageCluster, tell: Narrator) {
    this.source = source;
    this.tell = tell;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { api } = this.source;
    const { items, sequence } = await api.listVolumes();
    for (const volume of items) await this.volume(volume);
    for await (const change of api.changes(sequence, signal)) {
      if (change.kind === "volume") await this.volume(await api.getVolume(change.name));
      if (change.kind === "job") await this.jobNamed(change.name);
    }
  }

  private async volume(volume: VolumeView): Promise<void> {
    for (const snapshot of volume.snapshots) {
      const before = this.snapshots.get(snapshot.name);
      if (before === undefined && snapshot.state === "sealed" && !snapshot.released) {
        await this.source.api.putHold(volume.name, snapshot.name, demoHold);
        this.tell.say(
          "snapshot",
          `${snapshot.name}, generation ${snapshot.generation}, writers held up ${snapshot.stallMs.toFixed(1)} ms`,
        );
        this.snapshots.set(snapshot.name, "taken");
      }
      if (before === "taken" && snapshot.released) {
        this.tell.say("released", `${snapshot.name} has expired and no location needs it`);
        this.snapshots.set(snapshot.name, "released");
      }
    }
  }

  private async jobNamed(name: string): Promise<void> {
    try {
      this.job(await this.source.api.getJob(name));
    } catch (error) {
      // Forgotten since it changed: its end was told before.
      if (codeOf(error) !== "NotFound") throw error;
    }
  }

  private job(job: JobView): void {
    const { location, snapshot } = job.spec;
    const known = this.jobs.get(job.name);
    const phase = job.finishedAt !== null ? job.state : job.mode === null ? "taken" : "planned";
    if (known === phase) return;
    this.jobs.set(job.name, phase);
    if (phase === "taken") this.tell.say("expired", `${snapshot} is due for migration to ${location}`);
    if (phase === "planned" || (known !== "planned" && job.state === "Succeeded")) {
      this.tell.say(
        "migration",
        `to ${location}: ${job.mode?.kind}, ${job.mode?.reason}: ${bytesText(job.bytesTotal)} to send`,
      );
    }
    if (job.finishedAt === null) return;
    this.ended.push(job);
    this.tell.say("migration", `to ${location}: ${ending(job)}`);
  }
}

function ending(job: JobView): string {
  if (job.state !== "Succeeded") return `${job.state}: ${job.error?.detail ?? "no reason given"}`;
  const { bytesTotal, bytesSent, durationMs, verified } = job;
  const rate = durationMs ? `${bytesText(Math.round((bytesSent * 1000) / durationMs))}/s` : "at once";
  const how = verified === null ? "nothing to verify" : `verified from ${verified}`;
  return `committed in ${durationMs} ms: ${bytesText(bytesTotal)} changed, ${bytesText(bytesSent)} sent, ${rate}, ${how}`;
}
