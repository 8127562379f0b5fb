// A PostgreSQL that is written to without a break, in a way by which any state of it can be judged: transactions move money between
// accounts, so that the sum stays nought, and each adds one entry to a chain in which every digest is of all before it.
import type { Manifest } from "../kube-client.ts";
import { inPod, podIsReady } from "./kube.ts";
import { claim, type Namespace } from "./objects.ts";
import type { TestCluster } from "./test-cluster.ts";

const where: Namespace = "bank";
/** Of the tests' own making (tools/image.ts): serves what is in `/data/pgdata`, and makes it if there is nothing. */
const image = "postgres:test";
/** That the image runs as. */
const user = 65532;

/** A log that is let grow would fill the small disk of a test. */
const settings = ["max_wal_size=96MB", "min_wal_size=32MB", "checkpoint_timeout=30s"];

// Two dollars in a row would reach the pod as one.
const schema = `
create table if not exists account (id int primary key, balance bigint not null);
create table if not exists entry (n bigint primary key, written timestamptz not null, digest text not null);
insert into account select id, 0 from generate_series(0, 999) id on conflict do nothing;
create or replace procedure write_on() language plpgsql as $body$
declare
  number bigint := coalesce((select max(n) from entry), 0);
  so_far text := coalesce((select digest from entry where n = number), '');
begin
  loop
    number := number + 1;
    so_far := md5(so_far || number);
    update account set balance = balance - number where id = number % 1000;
    update account set balance = balance + number where id = (number * 7 + 1) % 1000;
    insert into entry values (number, clock_timestamp(), so_far);
    commit;
    perform pg_sleep(0.02);
  end loop;
end $body$;`;

const writer = `until pg_isready --quiet; do sleep 0.2; done
psql --quiet --set ON_ERROR_STOP=1 <<'END'
${schema}
END
exec psql --quiet --set ON_ERROR_STOP=1 --command 'call write_on()'`;

const security = { runAsNonRoot: true, runAsUser: user, runAsGroup: user, fsGroup: user };

function server(volume: string): object {
  return {
    name: "server",
    image,
    args: settings.flatMap((setting) => ["-c", setting]),
    readinessProbe: { exec: { command: ["pg_isready", "--quiet"] }, periodSeconds: 1, timeoutSeconds: 5 },
    volumeMounts: [{ name: volume, mountPath: "/data" }],
  };
}

/** The database and who writes to it, as a StatefulSet with a claim {@link ledgerClaim} of this class. */
export function ledger(storageClassName: string): Manifest {
  const labels = { app: "ledger" };
  const writing = {
    name: "writer",
    image,
    command: ["sh", "-c", writer],
    env: [{ name: "PGHOST", value: "127.0.0.1" }],
  };
  const data = claim({ namespace: where, name: "data", storageClass: storageClassName, size: "1Gi" });
  return {
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    metadata: { name: "ledger", namespace: where },
    spec: {
      serviceName: "ledger",
      replicas: 1,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { securityContext: security, terminationGracePeriodSeconds: 5, containers: [server("data"), writing] },
      },
      volumeClaimTemplates: [{ metadata: { name: "data" }, spec: data.spec }],
    },
  };
}

export const ledgerClaim = "data-ledger-0";
export const ledgerPod = "ledger-0";

/** A pod that serves the database in a claim, and writes no entries to it. */
export function restored(name: string, claimName: string): Manifest {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: where },
    spec: {
      securityContext: security,
      terminationGracePeriodSeconds: 5,
      containers: [server("data")],
      volumes: [{ name: "data", persistentVolumeClaim: { claimName } }],
    },
  };
}

/** Entries are numbered from 1. */
export interface Judgement {
  readonly entries: number;
  /** When the last entry was written, RFC 3339. */
  readonly lastWritten: string;
  /** Numbers that are not in their place, and digests that are not of all before them. */
  readonly broken: number;
  /** Nought, unless a part of a transaction is missing. */
  readonly sum: number;
}

const judge = `select json_build_object(
  'entries', count(*),
  'lastWritten', to_char(max(written) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'broken', count(*) filter (where n <> place or digest <> md5(coalesce(previous, '') || n)),
  'sum', (select sum(balance) from account))
from (select n, written, digest, row_number() over (order by n) as place, lag(digest) over (order by n) as previous
  from entry) as chain`;

/** What a database that serves holds. */
export async function judgeDatabase(cluster: TestCluster, pod: string): Promise<Judgement> {
  return JSON.parse(await ask(cluster, pod, judge)) as Judgement;
}

/** How many entries were surely there at a moment: the next one was begun before it, and nobody else writes. */
export async function entriesBefore(cluster: TestCluster, pod: string, timeMs: number): Promise<number> {
  const moment = `to_timestamp(${timeMs / 1_000})`;
  return Number(await ask(cluster, pod, `select greatest(count(*) - 1, 0) from entry where written < ${moment}`));
}

/** PostgreSQL's own check of tables and indexes; throws what it found. */
export async function checkDatabase(cluster: TestCluster, pod: string): Promise<void> {
  const check = "pg_amcheck --install-missing --heapallindexed --parent-check --database=postgres";
  await inPod(cluster, { kind: "pod", namespace: where, name: pod }, check, "server");
}

export async function databaseServes(cluster: TestCluster, pod: string): Promise<void> {
  await podIsReady(cluster, where, pod);
}

async function ask(cluster: TestCluster, pod: string, sql: string): Promise<string> {
  const query = `psql --no-psqlrc --tuples-only --no-align <<'END'\n${sql};\nEND`;
  return (await inPod(cluster, { kind: "pod", namespace: where, name: pod }, query, "server")).trim();
}
