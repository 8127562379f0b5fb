// Migration locations as this agent knows them: where a target cluster answers, and what the last probe said.
import { openTokenBucket, type TokenBucket } from "../base/token-bucket.ts";
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { Hello } from "../wire/peer.ts";
import type { LocationSpec, LocationState, LocationView, Member } from "../wire/schemas.ts";
import { type Core, checkRevision, timeText } from "./core.ts";
import type { PeerConnection } from "./engine-options.ts";
import { dropHold, sweep } from "./points.ts";
import { publishVolume, touchVolume } from "./volume-rows.ts";

interface LocationRow {
  readonly name: string;
  readonly specJson: string;
  readonly revision: number;
}

interface Probe {
  readonly state: LocationState;
  readonly message: string;
  readonly clusterUid: string | null;
  readonly members: Member[];
  readonly freeBytes: number | null;
  readonly roundTripMs: number | null;
  readonly probedAtMs: number | null;
}

const notProbed: Probe = {
  state: "unknown",
  message: "not probed yet",
  clusterUid: null,
  members: [],
  freeBytes: null,
  roundTripMs: null,
  probedAtMs: null,
};

export class Locations {
  private readonly core: Core;
  private readonly probes = new Map<string, Probe>();
  private readonly connections = new Map<string, PeerConnection>();
  private readonly buckets = new Map<string, TokenBucket>();

  constructor(core: Core) {
    this.core = core;
  }

  list(): LocationView[] {
    return this.rows().map((row) => this.view(row));
  }

  get(name: string): LocationView {
    return this.view(this.row(name));
  }

  spec(name: string): LocationSpec {
    return JSON.parse(this.row(name).specJson);
  }

  /** The location's own limits, as far as it has any, and is there. */
  limits(name: string): Pick<LocationSpec, "jobsMax" | "bytesPerSecondMax"> {
    const row = this.find(name);
    return row === undefined ? {} : (JSON.parse(row.specJson) as LocationSpec);
  }

  /** See AgentApi.putLocation. */
  async put(name: string, spec: LocationSpec, { ifMatch }: Precondition): Promise<LocationView> {
    const row = this.find(name);
    checkRevision(`location ${name}`, row?.revision ?? 0, ifMatch);
    if (spec.clusterUid === this.core.cluster.uid) {
      throw new LongshoreError("BadRequest", `location ${name} names this cluster itself (${spec.clusterUid})`);
    }
    const specJson = JSON.stringify(spec);
    if (row?.specJson !== specJson) {
      this.core.journal.transaction(() =>
        this.core.journal.run(
          `INSERT INTO locations (name, specJson, revision) VALUES (?,?,1)
           ON CONFLICT (name) DO UPDATE SET specJson = excluded.specJson, revision = revision + 1`,
          name,
          specJson,
        ),
      );
      this.buckets.get(name)?.setRate(spec.bytesPerSecondMax);
      if (row === undefined || leadsElsewhere(JSON.parse(row.specJson), spec)) {
        await this.disconnect(name);
        this.probes.delete(name);
      }
      this.core.feed.publish("location", name);
    }
    if (!this.probes.has(name)) this.core.tasks.spawn(`probe ${name}`, () => this.probe(name));
    return this.get(name);
  }

  /** See AgentApi.removeLocation. With `force`, `abandon` ends the jobs there first. */
  async remove(
    name: string,
    options: Precondition & { force?: boolean | undefined },
    abandon: () => void,
  ): Promise<void> {
    const { journal, feed } = this.core;
    const row = this.find(name);
    if (row === undefined) return;
    checkRevision(`location ${name}`, row.revision, options.ifMatch);
    if (options.force === true) abandon();
    const bases = journal.all<{ owner: string; pointId: string }>(
      "SELECT owner, pointId FROM bases WHERE location = ?",
      name,
    );
    journal.transaction(() => {
      const job = journal.get<{ name: string }>(
        "SELECT name FROM jobs WHERE location = ? AND finishedAt IS NULL AND parent IS NULL",
        name,
      );
      if (job !== undefined) throw new LongshoreError("InUse", `location ${name} is in use by job ${job.name}`);
      if (bases.length > 0 && options.force !== true) {
        throw new LongshoreError("InUse", `location ${name} is the migration location of ${bases.length} volume(s)`);
      }
      for (const { owner, pointId } of bases) {
        dropHold(journal, { owner, pointId, reason: "base", holder: name });
        touchVolume(this.core, owner);
      }
      journal.run("DELETE FROM bases WHERE location = ?", name);
      journal.run("DELETE FROM locations WHERE name = ?", name);
    });
    await this.disconnect(name);
    this.probes.delete(name);
    this.buckets.delete(name);
    for (const { owner } of bases) {
      await sweep(this.core, owner);
      publishVolume(this.core, owner);
    }
    feed.publish("location", name);
  }

  /** The connection to a location's cluster, shared by its jobs. Throws `NotFound`. */
  connection(name: string): PeerConnection {
    const known = this.connections.get(name);
    if (known !== undefined) return known;
    const connection = this.core.connect(this.spec(name));
    this.connections.set(name, connection);
    return connection;
  }

  /** Throws `Untrusted` when what answers for a location is this cluster itself, or not the one its spec names. */
  checkIdentity(name: string, clusterUid: string): void {
    const named = this.spec(name).clusterUid;
    if (clusterUid === this.core.cluster.uid) {
      throw new LongshoreError("Untrusted", `the seeds of location ${name} lead to this cluster itself`);
    }
    if (named === undefined || named === clusterUid) return;
    throw new LongshoreError("Untrusted", `at location ${name} cluster ${clusterUid} answers, not ${named}`);
  }

  /** Waits until `bytes` more may be sent there; a changed limit holds at once, for running jobs as well. */
  async pace(name: string, bytes: number, signal: AbortSignal): Promise<void> {
    const known = this.buckets.get(name);
    const bucket = known ?? openTokenBucket(this.spec(name).bytesPerSecondMax, this.core.clock);
    if (known === undefined) this.buckets.set(name, bucket);
    await bucket.take(bytes, signal);
  }

  async probeAll(): Promise<void> {
    await Promise.all(this.rows().map((row) => this.probe(row.name)));
  }

  async close(): Promise<void> {
    for (const name of this.connections.keys()) await this.disconnect(name);
  }

  private async probe(name: string): Promise<void> {
    if (this.find(name) === undefined) return;
    const before = this.probes.get(name);
    const after = await this.ask(name);
    if (this.find(name) === undefined) return;
    this.probes.set(name, after);
    if (before !== undefined && whatIsNews(before) === whatIsNews(after)) return;
    this.core.log.info({ location: name, state: after.state, message: after.message }, "location probed");
    this.core.feed.publish("location", name);
  }

  private async ask(name: string): Promise<Probe> {
    const { clock } = this.core;
    const startMs = clock.monotonicMs();
    try {
      const hello = await this.hello(name);
      this.checkIdentity(name, hello.clusterUid);
      return {
        state: "reachable",
        message: `${hello.members.length} agent(s) of ${hello.clusterName} answer`,
        clusterUid: hello.clusterUid,
        members: hello.members,
        freeBytes: hello.freeBytes,
        roundTripMs: clock.monotonicMs() - startMs,
        probedAtMs: clock.nowMs(),
      };
    } catch (error) {
      return { ...notProbed, state: stateOf(error), message: describe(error), probedAtMs: clock.nowMs() };
    }
  }

  private async hello(name: string): Promise<Hello> {
    try {
      return await this.connection(name).api.hello();
    } catch (cause) {
      if (codeOf(cause) !== "Forbidden") throw cause;
      // Agents of our own cluster do not answer us here, for they would be asked as a target.
      throw new LongshoreError("Untrusted", `the seeds of location ${name} lead to this cluster itself`, { cause });
    }
  }

  private async disconnect(name: string): Promise<void> {
    const connection = this.connections.get(name);
    this.connections.delete(name);
    await connection?.close();
  }

  private rows(): LocationRow[] {
    return this.core.journal.all<LocationRow>("SELECT * FROM locations ORDER BY name");
  }

  private find(name: string): LocationRow | undefined {
    return this.core.journal.get<LocationRow>("SELECT * FROM locations WHERE name = ?", name);
  }

  private row(name: string): LocationRow {
    const row = this.find(name);
    if (row === undefined) throw new LongshoreError("NotFound", `location ${name} does not exist`);
    return row;
  }

  private view(row: LocationRow): LocationView {
    const { probedAtMs, ...probe } = this.probes.get(row.name) ?? notProbed;
    const used = this.core.journal.get<{ n: number }>(
      `SELECT count(*) AS n FROM (SELECT owner FROM bases WHERE location = ?1
       UNION SELECT owner FROM jobs WHERE location = ?1 AND finishedAt IS NULL AND shareJson IS NULL)`,
      row.name,
    );
    return {
      name: row.name,
      spec: JSON.parse(row.specJson),
      ...probe,
      probedAt: probedAtMs === null ? null : timeText(probedAtMs),
      volumes: used?.n ?? 0,
      revision: row.revision,
    };
  }
}

/** Whether connections made under one spec are of no use under the other; a limit alone does not break what is running. */
function leadsElsewhere(old: LocationSpec, spec: LocationSpec): boolean {
  const way = ({ seeds, caBundle, clusterUid }: LocationSpec) => JSON.stringify([seeds, caBundle, clusterUid]);
  return way(old) !== way(spec);
}

/** Of a probe; how long it took and the room there is are different each time. */
function whatIsNews({ state, message, members }: Probe): string {
  return JSON.stringify([state, message, members.map(({ agentId, state: ofMember }) => [agentId, ofMember])]);
}

function stateOf(error: unknown): LocationState {
  const code = codeOf(error);
  if (code === "Untrusted") return "untrusted";
  return code === "NotConsented" ? "notConsented" : "unreachable";
}
