// The framework's Operator with everything replaced that is not fit for production (its watches), or that needs a client
// which no longer exists (its requests). What it promises to subclasses stays: init() registers watches, events come as
// ResourceEvents, handleResourceFinalizer works.
import { readFile } from "node:fs/promises";
import {
  CoreV1Api,
  type KubeConfig,
  type KubernetesObject,
  loadYaml,
  type V1CustomResourceDefinitionVersion,
} from "@kubernetes/client-node";
import { assert } from "../base/assert.ts";
import type { Log } from "../base/log.ts";
import type { Api } from "./api.ts";
import { apiVersionOf, type KindRef, type KubeObject, keyOf } from "./cluster.ts";
import {
  Operator,
  type OperatorLogger,
  type ResourceEvent,
  ResourceEventType,
  type ResourceMeta,
  ResourceMetaImpl,
} from "./framework.ts";
import type { Informer } from "./informer.ts";
import { fieldManager } from "./kube-cluster.ts";
import { isRecord } from "./merge-patch.ts";
import { objectPath } from "./resource-path.ts";
import type { Store } from "./store.ts";

/** A change of an object: `before` is absent for a new one, `after` for one that is gone. */
export interface ChangeEvent extends ResourceEvent {
  readonly before?: KubeObject;
  readonly after?: KubeObject;
}

export interface OperatorParts {
  readonly config: KubeConfig;
  readonly api: Api;
  readonly log: Log;
  /** Everything that is watched. */
  readonly kinds: readonly KindRef[];
  openInformer(kind: KindRef): Informer;
  /** Called for each change, in order for each kind. Must not throw. */
  onChange(kind: KindRef, event: ChangeEvent): void;
  /** Called after each full list of a kind. */
  onListed(kind: KindRef, objects: readonly KubeObject[]): void;
}

export class LongshoreOperator extends Operator {
  readonly #parts: OperatorParts;
  readonly #informers = new Map<string, Informer>();
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>[] = [];

  constructor(parts: OperatorParts) {
    super(loggerOf(parts.log));
    this.#parts = parts;
    this.kubeConfig = parts.config;
    this.k8sApi = parts.config.makeApiClient(CoreV1Api);
  }

  /** The cache of a kind, `undefined` when it is not watched. */
  storeOf(kind: KindRef): Store | undefined {
    return this.#informers.get(kindId(kind))?.store;
  }

  /** Resolves once every cache has held everything. */
  async synced(signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#informers.values()].map((informer) => informer.synced(signal)));
  }

  override stop(): void {
    this.#stopping.abort(new Error("the operator stops"));
  }

  /** Stops, and returns when nothing runs any more. */
  async close(): Promise<void> {
    this.stop();
    await Promise.all(this.#running);
  }

  protected override async init(): Promise<void> {
    for (const kind of this.#parts.kinds) {
      const onEvent = async (event: ResourceEvent) => this.#parts.onChange(kind, event);
      await this.watchResource(kind.group, kind.version, kind.plural, onEvent);
    }
  }

  /** Lists and watches all objects of a kind; returns at once. Only kinds given to the constructor, in all namespaces. */
  protected override async watchResource(
    group: string,
    version: string,
    plural: string,
    onEvent: (event: ResourceEvent) => Promise<void>,
    namespace?: string,
  ): Promise<void> {
    assert(namespace === undefined, `${plural} are watched in all namespaces only`);
    const kind = this.#kindOf(kindId({ group, version, plural }));
    const informer = this.#parts.openInformer(kind);
    informer.store.onChange(({ before, after }) => {
      void onEvent(eventOf(kind, before, after)).catch((error: unknown) =>
        this.#parts.log.error({ kind: kind.kind, err: error }, "change not handled"),
      );
    });
    informer.onListed(() => this.#parts.onListed(kind, informer.store.list()));
    this.#informers.set(kindId(kind), informer);
    this.#running.push(informer.run(this.#stopping.signal));
  }

  /** Installs or updates the definition in the file. */
  protected override async registerCustomResourceDefinition(
    crdFile: string,
  ): Promise<{ group: string; versions: V1CustomResourceDefinitionVersion[]; plural: string }> {
    const definition = loadYaml<DefinitionFile>(await readFile(crdFile, "utf8"));
    const isDefinition = definition.apiVersion.startsWith("apiextensions.k8s.io/");
    if (!isDefinition) throw new Error(`${crdFile} is not a CustomResourceDefinition`);
    const path = `/apis/${definition.apiVersion}/customresourcedefinitions/${definition.metadata.name}`;
    const contentType = "application/apply-patch+yaml";
    const query = { fieldManager, force: "true" };
    await this.#parts.api.request({ method: "PATCH", path, query, contentType, body: definition });
    const { group, versions, names } = definition.spec;
    return { group, versions, plural: names.plural };
  }

  protected override getCustomResourceApiUri(
    group: string,
    version: string,
    plural: string,
    namespace?: string,
  ): string {
    const server = this.kubeConfig.getCurrentCluster()?.server ?? "";
    const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
    return `${server}${root}${namespace === undefined ? "" : `/namespaces/${namespace}`}/${plural}`;
  }

  protected override async setResourceStatus(meta: ResourceMeta, status: unknown): Promise<ResourceMeta> {
    return await this.#write("PUT", meta, { ...identityOf(meta), status });
  }

  protected override async patchResourceStatus(meta: ResourceMeta, status: unknown): Promise<ResourceMeta> {
    return await this.#write("PATCH", meta, { status });
  }

  /** Sets the finalizers of exactly the version that `meta` names; unlike the framework's, it throws when that fails. */
  protected override async setResourceFinalizers(meta: ResourceMeta, finalizers: string[]): Promise<void> {
    const path = objectPath(this.#kindOf(meta.id), keyOf({ metadata: meta }));
    const body = { metadata: { resourceVersion: meta.resourceVersion, finalizers } };
    const contentType = "application/merge-patch+json";
    await this.#parts.api.request({ method: "PATCH", path, query: { fieldManager }, contentType, body });
  }

  protected override async handleResourceFinalizer(
    event: ResourceEvent,
    finalizer: string,
    deleteAction: (event: ResourceEvent) => Promise<void>,
  ): Promise<boolean> {
    // The framework writes into the object, and ours is the cache's.
    const copy = { ...event, object: structuredClone(event.object) };
    return await super.handleResourceFinalizer(copy, finalizer, deleteAction);
  }

  async #write(method: "PUT" | "PATCH", meta: ResourceMeta, body: unknown): Promise<ResourceMeta> {
    const path = objectPath(this.#kindOf(meta.id), keyOf({ metadata: meta }), "status");
    const contentType = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    const answer = await this.#parts.api.request({ method, path, query: { fieldManager }, contentType, body });
    assert(isRecord(answer), `the status of ${meta.name} was answered with something else than an object`);
    return ResourceMetaImpl.createWithId(meta.id, answer as KubernetesObject);
  }

  #kindOf(id: string): KindRef {
    const kind = this.#parts.kinds.find((known) => kindId(known) === id);
    assert(kind !== undefined, `${id} is not among the operator's kinds`);
    return kind;
  }
}

interface DefinitionFile {
  readonly apiVersion: string;
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly group: string;
    readonly versions: V1CustomResourceDefinitionVersion[];
    readonly names: { readonly plural: string };
  };
}

/** The framework's id of a kind, such as `volumemigrations.longshore.dev/v1`. */
export function kindId(kind: Pick<KindRef, "group" | "version" | "plural">): string {
  return `${kind.plural}.${apiVersionOf(kind as KindRef)}`;
}

function eventOf(kind: KindRef, before: KubeObject | undefined, after: KubeObject | undefined): ChangeEvent {
  const object = after ?? before;
  assert(object !== undefined, "a change from nothing to nothing");
  const present = before === undefined ? ResourceEventType.Added : ResourceEventType.Modified;
  // The client library's type is the same thing with everything optional and nothing readonly.
  const theirs = object as unknown as KubernetesObject;
  return {
    type: after === undefined ? ResourceEventType.Deleted : present,
    meta: ResourceMetaImpl.createWithId(kindId(kind), theirs),
    object: theirs,
    ...(before && { before }),
    ...(after && { after }),
  };
}

function identityOf({ apiVersion, kind, name, namespace, resourceVersion }: ResourceMeta) {
  return { apiVersion, kind, metadata: { name, resourceVersion, ...(namespace !== undefined && { namespace }) } };
}

function loggerOf(log: Log): OperatorLogger {
  return {
    debug: (message) => log.debug(message),
    info: (message) => log.info(message),
    warn: (message) => log.warn(message),
    error: (message) => log.error(message),
  };
}
