// The Cluster of a real API server: reads from the informers' caches, effects as single requests that are safe to repeat and
// that fail rather than act on an old view. What the server answers goes into the cache at once.
import { assert } from "../base/assert.ts";
import type { Api } from "./api.ts";
import {
  apiVersionOf,
  type Cluster,
  type Draft,
  type EventNote,
  type EventSubject,
  type Identity,
  type Index,
  type Key,
  type KindRef,
  type KubeObject,
  keyOf,
  type ListFilter,
  type StatusOf,
} from "./cluster.ts";
import { isAlreadyExists, isKubeError } from "./errors.ts";
import { listAll, withKind } from "./list.ts";
import { isRecord, isSameJson, mergePatch } from "./merge-patch.ts";
import { collectionPath, objectPath } from "./resource-path.ts";
import { type Store, slim } from "./store.ts";

/** The name under which the API server records what we wrote. */
export const fieldManager = "longshore";

/** Who may act at this moment. */
export interface Fence {
  /** Throws unless this process leads. */
  check(): void;
  /** Aborts when this process stops leading. */
  readonly signal: AbortSignal;
}

export interface ClusterDeps {
  readonly api: Api;
  readonly fence: Fence;
  /** The cache of a kind, `undefined` for kinds that nobody watches. */
  storeOf(kind: KindRef): Store | undefined;
  recordEvent(subject: EventSubject, note: EventNote): void;
}

export function openCluster(deps: ClusterDeps): Cluster {
  return new KubeCluster(deps);
}

type MergeBody = { readonly metadata: Readonly<Record<string, unknown>>; readonly status?: unknown };

class KubeCluster implements Cluster {
  readonly #deps: ClusterDeps;
  /** The draft that made an object what it is; objects of the cache are replaced when they change. */
  readonly #applied = new WeakMap<KubeObject, unknown>();

  constructor(deps: ClusterDeps) {
    this.#deps = deps;
  }

  get<T extends KubeObject>(kind: KindRef<T>, key: Key): T | undefined {
    return this.#store(kind).get(key) as T | undefined;
  }

  list<T extends KubeObject>(kind: KindRef<T>, filter?: ListFilter): readonly T[] {
    return this.#store(kind).list(filter) as readonly T[];
  }

  find<T extends KubeObject>(index: Index<T>, value: string): readonly T[] {
    // The store of a kind holds objects of that kind only, so the index meets what it expects.
    return this.#store(index.kind).find(index as unknown as Index, value) as readonly T[];
  }

  async read<T extends KubeObject>(kind: KindRef<T>, key: Key, signal?: AbortSignal): Promise<T | undefined> {
    try {
      const answer = await this.#deps.api.request({ method: "GET", path: objectPath(kind, key), signal });
      return this.#learn(kind, answer);
    } catch (error) {
      if (isKubeError(error, "NotFound")) return undefined;
      throw error;
    }
  }

  async readList<T extends KubeObject>(
    kind: KindRef<T>,
    filter?: ListFilter,
    signal?: AbortSignal,
  ): Promise<readonly T[]> {
    const { objects } = await listAll(this.#deps.api, kind, { filter, signal });
    return objects.map((object) => this.#learn(kind, object));
  }

  async create<T extends KubeObject>(
    kind: KindRef<T>,
    draft: Draft<T>,
    signal?: AbortSignal,
  ): Promise<"created" | "exists"> {
    const path = collectionPath(kind, draft.metadata.namespace);
    try {
      this.#learn(kind, await this.#send({ method: "POST", path, body: whole(kind, draft), signal }));
      return "created";
    } catch (error) {
      if (isAlreadyExists(error)) return "exists";
      throw error;
    }
  }

  async apply<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>, signal?: AbortSignal): Promise<T> {
    const key = keyOf(draft);
    const held = this.#deps.storeOf(kind)?.get(key);
    if (held !== undefined && isSameJson(this.#applied.get(held), draft)) return held as T;
    const answer = await this.#send({
      method: "PATCH",
      path: objectPath(kind, key),
      query: { force: "true" },
      contentType: "application/apply-patch+yaml",
      body: whole(kind, draft),
      signal,
    });
    const object = this.#learn(kind, answer);
    const learned = this.#deps.storeOf(kind)?.get(key);
    if (learned?.metadata.resourceVersion === object.metadata.resourceVersion) this.#applied.set(learned, draft);
    return object;
  }

  async patchStatus<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    status: StatusOf<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const { status: before } = object as { readonly status?: unknown };
    const patch = mergePatch(before, status as Readonly<Record<string, unknown>>);
    if (patch === undefined) return object;
    return await this.#patch(kind, object, { metadata: versionOf(object), status: patch }, signal);
  }

  async patchAnnotations<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    annotations: Readonly<Record<string, string | null>>,
    signal?: AbortSignal,
  ): Promise<T> {
    const held = object.metadata.annotations ?? {};
    const changed = Object.entries(annotations).filter(([name, value]) => (held[name] ?? null) !== value);
    if (changed.length === 0) return object;
    // Single annotations commute with whatever else changes, so only the identity is a precondition.
    const metadata = { uid: object.metadata.uid, annotations: Object.fromEntries(changed) };
    return await this.#patch(kind, object, { metadata }, signal);
  }

  async addFinalizer<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    finalizer: string,
    signal?: AbortSignal,
  ): Promise<T> {
    const held = object.metadata.finalizers ?? [];
    if (held.includes(finalizer)) return object;
    assert(
      object.metadata.deletionTimestamp === undefined,
      `a finalizer for ${kind.kind} ${object.metadata.name}, which is being deleted`,
    );
    return await this.#patch(
      kind,
      object,
      { metadata: { ...versionOf(object), finalizers: [...held, finalizer] } },
      signal,
    );
  }

  async removeFinalizer<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    finalizer: string,
    signal?: AbortSignal,
  ): Promise<void> {
    const held = object.metadata.finalizers ?? [];
    if (!held.includes(finalizer)) return;
    const finalizers = held.filter((name) => name !== finalizer);
    try {
      const left = await this.#patch(kind, object, { metadata: { ...versionOf(object), finalizers } }, signal);
      if (isGone(left)) this.#forget(kind, object);
    } catch (error) {
      if (!isKubeError(error, "NotFound")) throw error;
    }
  }

  async remove<T extends KubeObject>(
    kind: KindRef<T>,
    identity: Identity,
    signal?: AbortSignal,
  ): Promise<"removed" | "gone"> {
    const { uid, resourceVersion } = identity;
    const preconditions = { uid, ...(resourceVersion !== undefined && { resourceVersion }) };
    const body = { apiVersion: "v1", kind: "DeleteOptions", propagationPolicy: "Background", preconditions };
    try {
      const answer = await this.#send({ method: "DELETE", path: objectPath(kind, identity), body, signal });
      this.#noteRemoval(kind, identity, answer);
      return "removed";
    } catch (error) {
      // Another object of the name means that ours is gone; the same object means that it changed.
      if (!isKubeError(error, "NotFound") && !isOtherObject(error)) throw error;
      this.#forget(kind, { metadata: identity });
      return "gone";
    }
  }

  event(subject: EventSubject, note: EventNote): void {
    this.#deps.recordEvent(subject, note);
  }

  #store(kind: KindRef): Store {
    const store = this.#deps.storeOf(kind);
    assert(store !== undefined, `no controller watches or reads ${kind.kind}, so there is no cache of it`);
    return store;
  }

  async #patch<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    body: MergeBody,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const subresource = body.status === undefined ? undefined : "status";
    const path = objectPath(kind, keyOf(object), subresource);
    const contentType = "application/merge-patch+json";
    return this.#learn(kind, await this.#send({ method: "PATCH", path, contentType, body, signal }));
  }

  /** Every effect goes through here. */
  async #send(request: Parameters<Api["request"]>[0]): Promise<unknown> {
    const { api, fence } = this.#deps;
    fence.check();
    const signal = request.signal === undefined ? fence.signal : AbortSignal.any([fence.signal, request.signal]);
    const query = request.method === "DELETE" ? request.query : { ...request.query, fieldManager };
    return await api.request({ ...request, ...(query && { query }), signal });
  }

  #learn<T extends KubeObject>(kind: KindRef<T>, answer: unknown): T {
    const object = slim(withKind(answer, kind));
    if (!isGone(object)) this.#deps.storeOf(kind)?.learn(object);
    return object as T;
  }

  #noteRemoval(kind: KindRef, identity: Identity, answer: unknown): void {
    // What is only marked for deletion comes back as it is now; what is gone as a Status, or as it was last.
    const isMarked = isRecord(answer) && isRecord(answer.metadata) && answer.metadata.deletionTimestamp !== undefined;
    if (isMarked && !isGone(withKind(answer, kind))) this.#learn(kind, answer);
    else this.#forget(kind, { metadata: identity });
  }

  #forget(kind: KindRef, { metadata }: { readonly metadata: Key & { readonly uid: string } }): void {
    this.#deps.storeOf(kind)?.forget({ key: keyOf({ metadata }), uid: metadata.uid });
  }
}

function whole<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>): Readonly<Record<string, unknown>> {
  return { ...draft, apiVersion: apiVersionOf(kind), kind: kind.kind };
}

function versionOf({ metadata }: KubeObject): { readonly uid: string; readonly resourceVersion: string } {
  return { uid: metadata.uid, resourceVersion: metadata.resourceVersion };
}

/**
 * Whether a deletion was refused because the object has another UID than the precondition. The API server says so in words
 * only, and compares the UID first; should it ever say so in others, the conflict is thrown, and what follows it is done anew.
 */
function isOtherObject(error: unknown): boolean {
  return isKubeError(error, "Conflict") && /UID in (?:the )?precondition/.test(error.message);
}

/** Whether an answer shows the last state of an object that is no more: marked for deletion, and held back by nothing. */
function isGone({ metadata }: KubeObject): boolean {
  const { deletionTimestamp, finalizers = [] } = metadata;
  const { deletionGracePeriodSeconds = 0 } = metadata as { readonly deletionGracePeriodSeconds?: number };
  return deletionTimestamp !== undefined && finalizers.length === 0 && deletionGracePeriodSeconds === 0;
}
