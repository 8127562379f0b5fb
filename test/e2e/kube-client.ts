// The API server as a test sees it: as admin, without a process for each request. Applies as Argo CD does.
import { readFileSync } from "node:fs";
import { Agent, type RequestOptions, request } from "node:https";
import type { Condition, KubernetesObject, ObjectMeta } from "../../src/api/object.ts";
import type { ControlPlane } from "./control-plane.ts";
import { eventually } from "./process.ts";

export const argocd = "argocd-controller";

/** Enough of an object to be applied: its labels, annotations, spec and so on as they stand. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Readonly<Record<string, unknown>> & { readonly name: string; readonly namespace?: string };
  readonly [field: string]: unknown;
}

/** An object as the API server gives it. Tests look into it freely; what is not there fails their assertions. */
export interface Seen extends KubernetesObject {
  readonly metadata: ObjectMeta & {
    readonly managedFields?: readonly {
      readonly manager: string;
      readonly subresource?: string;
      readonly fieldsV1: Readonly<Record<string, unknown>>;
    }[];
  };
  // biome-ignore lint/suspicious/noExplicitAny: the shape is what the tests are there to see
  readonly spec: any;
  // biome-ignore lint/suspicious/noExplicitAny: the shape is what the tests are there to see
  readonly status?: any;
}

export interface Ref {
  readonly kind: Kind;
  readonly name: string;
  readonly namespace?: string;
}

export type Kind = keyof typeof collections;

const collections = {
  Namespace: "/api/v1/namespaces",
  Node: "/api/v1/nodes",
  Event: "/api/v1/events",
  Service: "/api/v1/services",
  EndpointSlice: "/apis/discovery.k8s.io/v1/endpointslices",
  PersistentVolume: "/api/v1/persistentvolumes",
  PersistentVolumeClaim: "/api/v1/persistentvolumeclaims",
  StorageClass: "/apis/storage.k8s.io/v1/storageclasses",
  VolumeSnapshot: "/apis/snapshot.storage.k8s.io/v1/volumesnapshots",
  VolumeSnapshotContent: "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents",
  MigrationLocation: "/apis/longshore.dev/v1/migrationlocations",
  SnapshotSchedule: "/apis/longshore.dev/v1/snapshotschedules",
  VolumeMigration: "/apis/longshore.dev/v1/volumemigrations",
  MigrationJob: "/apis/longshore.dev/v1/migrationjobs",
  MigrationSource: "/apis/longshore.dev/v1/migrationsources",
  MigratedVolume: "/apis/longshore.dev/v1/migratedvolumes",
} as const;

/** An event as told to a person. */
export interface Told {
  readonly type: string;
  readonly reason: string;
  readonly message: string;
}

export interface KubeClient {
  get(ref: Ref): Promise<Seen | undefined>;
  list(kind: Kind): Promise<Seen[]>;
  /** Server-side apply by `argocd-controller`. */
  apply(...objects: readonly Manifest[]): Promise<void>;
  /** A JSON merge patch, as `kubectl annotate` and `kubectl patch` make it. */
  patch(ref: Ref, body: object): Promise<void>;
  /** Asks for deletion; does not wait for finalizers. */
  remove(ref: Ref): Promise<void>;
  /** The events about an object, of this life of it or an earlier one. */
  events(ref: Ref): Promise<Told[]>;
  /** Waits until the object is there and `holds` of it. Tells what it last saw if that never comes. */
  until(ref: Ref, what: string, holds: (seen: Seen) => boolean): Promise<Seen>;
  untilGone(ref: Ref): Promise<void>;
  /** Waits for a condition of this reason, e.g. `Ready` `False` `LocationMissing`, and returns its message. */
  condition(ref: Ref, type: string, status: Condition["status"], reason?: string): Promise<string>;
  /** Waits for an event whose reason is this and whose message contains that. */
  told(ref: Ref, reason: string, part: string | RegExp): Promise<Told>;
}

const waitMs = { timeoutMs: 90_000, intervalMs: 150 };

/** `diagnose` is told with what did not happen: the end of a log, for example. */
export function openKubeClient(plane: ControlPlane, diagnose: () => string = () => ""): KubeClient {
  const agent = new Agent({ keepAlive: false, ca: readFileSync(plane.caFile) });
  const call = (method: string, path: string, content?: { type: string; body: object }) =>
    send({ plane, agent, method, path, ...(content !== undefined && { content }) });
  const get = async (ref: Ref) => (await call("GET", pathOf(ref))) as Seen | undefined;
  const events = async (ref: Ref): Promise<Told[]> => {
    const about = `involvedObject.kind=${ref.kind},involvedObject.name=${ref.name}`;
    const { items } = (await call("GET", `${collections.Event}?fieldSelector=${encodeURIComponent(about)}`)) as {
      items: (Told & { involvedObject: { namespace?: string } })[];
    };
    return items
      .filter(({ involvedObject }) => (involvedObject.namespace ?? "") === (ref.namespace ?? ""))
      .map(({ type, reason, message }) => ({ type, reason, message }));
  };
  return {
    get,
    events,
    list: async (kind) => ((await call("GET", collections[kind])) as { items: Seen[] }).items,
    async apply(...objects) {
      for (const object of objects) {
        const path = `${pathOf({ kind: object.kind as Kind, ...object.metadata })}?fieldManager=${argocd}&force=true`;
        await call("PATCH", path, { type: "application/apply-patch+yaml", body: object });
      }
    },
    async patch(ref, body) {
      await call("PATCH", pathOf(ref), { type: "application/merge-patch+json", body });
    },
    async remove(ref) {
      await call("DELETE", pathOf(ref));
    },
    async until(ref, what, holds) {
      let last: Seen | undefined;
      try {
        return await eventually(
          `${nameOf(ref)}: ${what}`,
          async () => {
            last = await get(ref);
            return last !== undefined && holds(last) ? last : undefined;
          },
          waitMs,
        );
      } catch (error) {
        const found = JSON.stringify({ spec: last?.spec, status: last?.status });
        throw new Error(`${String(error)}; last seen: ${found}\n${diagnose()}`, { cause: error });
      }
    },
    async untilGone(ref) {
      await eventually(`${nameOf(ref)} being gone`, async () => (await get(ref)) === undefined || undefined, waitMs);
    },
    async condition(ref, type, status, reason) {
      const { status: seen } = await this.until(ref, `${type} ${status} ${reason ?? ""}`, (object) => {
        const found = conditionOf(object, type);
        return found?.status === status && (reason === undefined || found.reason === reason);
      });
      return (seen.conditions as Condition[]).find((condition) => condition.type === type)?.message ?? "";
    },
    async told(ref, reason, part) {
      let last: Told[] = [];
      const isIt = (event: Told) =>
        event.reason === reason && (typeof part === "string" ? event.message.includes(part) : part.test(event.message));
      try {
        return await eventually(
          `event ${reason} on ${nameOf(ref)}`,
          async () => {
            last = await events(ref);
            return last.find(isIt);
          },
          waitMs,
        );
      } catch (error) {
        throw new Error(`${String(error)}; told so far: ${JSON.stringify(last)}\n${diagnose()}`, { cause: error });
      }
    },
  };
}

export function conditionOf(object: Seen | undefined, type: string): Condition | undefined {
  return (object?.status?.conditions as Condition[] | undefined)?.find((condition) => condition.type === type);
}

function nameOf({ kind, namespace, name }: Ref): string {
  return `${kind} ${namespace === undefined ? "" : `${namespace}/`}${name}`;
}

function pathOf({ kind, namespace, name }: Ref): string {
  const collection: string = collections[kind];
  if (namespace === undefined) return `${collection}/${name}`;
  const cut = collection.lastIndexOf("/");
  return `${collection.slice(0, cut)}/namespaces/${namespace}${collection.slice(cut)}/${name}`;
}

interface Call {
  readonly plane: ControlPlane;
  readonly agent: Agent;
  readonly method: string;
  readonly path: string;
  readonly content?: { readonly type: string; readonly body: object };
}

/** The answer; `undefined` for what is not there. Throws the API server's message otherwise. */
async function send({ plane, agent, method, path, content }: Call): Promise<unknown> {
  const body = content === undefined ? undefined : JSON.stringify(content.body);
  const headers = {
    authorization: `Bearer ${plane.adminToken}`,
    accept: "application/json",
    ...(content && { "content-type": content.type }),
  };
  const { status, text } = await exchange(new URL(path, plane.server), { method, headers, agent }, body);
  if (status === 404 && (method === "GET" || method === "DELETE")) return undefined;
  const answer = JSON.parse(text) as { message?: string };
  if (status >= 300) throw new Error(`${method} ${path}: ${status} ${answer.message}`);
  return answer;
}

function exchange(url: URL, options: RequestOptions, body = ""): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const asked = request(url, options, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.once("end", () => resolve({ status: response.statusCode ?? 0, text })).once("error", reject);
    });
    asked.once("error", reject);
    asked.end(body);
  });
}
