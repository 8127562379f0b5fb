// A working Cluster in memory, connected to a FakeKubernetes. Its cache is the real one's store; it follows at once unless it
// is held back. With a CrashPoint the process behind it is killed, or loses an answer, at an effect of choice.
import { assert } from "../../src/base/assert.ts";
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
  renderKey,
  type StatusOf,
} from "../../src/kube/cluster.ts";
import { isAlreadyExists, isKubeError, KubeError } from "../../src/kube/errors.ts";
import { isSameJson, mergePatch } from "../../src/kube/merge-patch.ts";
import { openStore, type Store } from "../../src/kube/store.ts";
import { CrashPoint } from "./crash-point.ts";
import { type FakeChange, FakeKubernetes } from "./fake-kubernetes.ts";

export interface FakeClusterOptions {
  readonly server?: FakeKubernetes;
  readonly crash?: CrashPoint;
  /** The kinds that are cached; all unless given. */
  readonly kinds?: readonly KindRef[];
}

export class FakeCluster implements Cluster {
  readonly server: FakeKubernetes;
  readonly crash: CrashPoint;
  readonly #kinds: readonly KindRef[] | undefined;
  readonly #stores = new Map<string, Store>();
  readonly #applied = new WeakMap<KubeObject, unknown>();
  readonly #listeners: ((kind: KindRef, before?: KubeObject, after?: KubeObject) => void)[] = [];
  readonly #unsubscribe: () => void;
  #heldBack: FakeChange[] | undefined;

  constructor({ server = new FakeKubernetes(), crash = new CrashPoint(), kinds }: FakeClusterOptions = {}) {
    this.server = server;
    this.crash = crash;
    this.#kinds = kinds;
    this.#unsubscribe = server.onChange((change) => this.#deliver(change));
  }

  /** A new process against the same API server, with a cache that is filled afresh. This one gets no more news. */
  restarted(crash = new CrashPoint()): FakeCluster {
    this.#unsubscribe();
    return new FakeCluster({ server: this.server, crash, ...(this.#kinds && { kinds: this.#kinds }) });
  }

  /** From now on the cache hears nothing but what this cluster itself writes and reads, until {@link catchUp}. */
  holdBack(): void {
    this.#heldBack ??= [];
  }

  catchUp(): void {
    const changes = this.#heldBack ?? [];
    this.#heldBack = undefined;
    for (const change of changes) this.#deliver(change);
  }

  /** Tells of changes in the cache of kinds that have been asked for, as an informer does. */
  onChange(listener: (kind: KindRef, before?: KubeObject, after?: KubeObject) => void): void {
    this.#listeners.push(listener);
  }

  get<T extends KubeObject>(kind: KindRef<T>, key: Key): T | undefined {
    return this.#cache(kind).get(key) as T | undefined;
  }

  list<T extends KubeObject>(kind: KindRef<T>, filter?: ListFilter): readonly T[] {
    return this.#cache(kind).list(filter) as readonly T[];
  }

  find<T extends KubeObject>(index: Index<T>, value: string): readonly T[] {
    return this.#cache(index.kind).find(index as unknown as Index, value) as readonly T[];
  }

  async read<T extends KubeObject>(kind: KindRef<T>, key: Key, signal?: AbortSignal): Promise<T | undefined> {
    this.#check(signal);
    const object = this.server.get(kind, key);
    if (object !== undefined) this.#stores.get(idOf(kind))?.learn(object);
    return object;
  }

  async readList<T extends KubeObject>(
    kind: KindRef<T>,
    { namespace, labels = {} }: ListFilter = {},
    signal?: AbortSignal,
  ): Promise<readonly T[]> {
    this.#check(signal);
    const wanted = Object.entries(labels);
    return this.server
      .list(kind)
      .filter(({ metadata }) => namespace === undefined || metadata.namespace === namespace)
      .filter(({ metadata }) => wanted.every(([name, value]) => metadata.labels?.[name] === value));
  }

  async create<T extends KubeObject>(
    kind: KindRef<T>,
    draft: Draft<T>,
    signal?: AbortSignal,
  ): Promise<"created" | "exists"> {
    try {
      await this.#effect("create", kind, keyOf(draft), signal, () => this.server.create(kind, draft));
      return "created";
    } catch (error) {
      if (isAlreadyExists(error)) return "exists";
      throw error;
    }
  }

  async apply<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>, signal?: AbortSignal): Promise<T> {
    const held = this.#stores.get(idOf(kind))?.get(keyOf(draft));
    if (held !== undefined && isSameJson(this.#applied.get(held), draft)) return held as T;
    const apply = () => this.server.apply(kind, draft, "longshore");
    const object = await this.#effect("apply", kind, keyOf(draft), signal, apply);
    this.#applied.set(object, draft);
    return object;
  }

  async patchStatus<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    status: StatusOf<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const { status: before } = object as { readonly status?: unknown };
    if (mergePatch(before, status as Readonly<Record<string, unknown>>) === undefined) return object;
    const key = keyOf(object);
    return await this.#effect("patchStatus", kind, key, signal, () =>
      this.server.setStatus(kind, key, status, object.metadata),
    );
  }

  async patchAnnotations<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    annotations: Readonly<Record<string, string | null>>,
    signal?: AbortSignal,
  ): Promise<T> {
    const held = object.metadata.annotations ?? {};
    if (Object.entries(annotations).every(([name, value]) => (held[name] ?? null) === value)) return object;
    const key = keyOf(object);
    return await this.#effect("patchAnnotations", kind, key, signal, () => {
      this.server.require(kind, key, { uid: object.metadata.uid });
      return this.server.edit(kind, key, { metadata: { annotations } });
    });
  }

  async addFinalizer<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    finalizer: string,
    signal?: AbortSignal,
  ): Promise<T> {
    const { finalizers = [], deletionTimestamp, name } = object.metadata;
    if (finalizers.includes(finalizer)) return object;
    assert(deletionTimestamp === undefined, `a finalizer for ${kind.kind} ${name}, which is being deleted`);
    const change = { finalizers: [...finalizers, finalizer] };
    return await this.#patchMeta("addFinalizer", kind, object, change, signal);
  }

  async removeFinalizer<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    finalizer: string,
    signal?: AbortSignal,
  ): Promise<void> {
    const { finalizers = [] } = object.metadata;
    if (!finalizers.includes(finalizer)) return;
    const change = { finalizers: finalizers.filter((held) => held !== finalizer) };
    try {
      await this.#patchMeta("removeFinalizer", kind, object, change, signal);
    } catch (error) {
      if (!isKubeError(error, "NotFound")) throw error;
    }
  }

  async remove<T extends KubeObject>(
    kind: KindRef<T>,
    identity: Identity,
    signal?: AbortSignal,
  ): Promise<"removed" | "gone"> {
    const key = keyOf({ metadata: identity });
    this.#check(signal);
    if (this.server.get(kind, key)?.metadata.uid !== identity.uid) return "gone";
    await this.#effect("remove", kind, key, signal, () => this.server.delete(kind, key, identity));
    if (this.server.get(kind, key)?.metadata.uid === identity.uid) await this.read(kind, key, signal);
    else this.#stores.get(idOf(kind))?.forget({ key, uid: identity.uid });
    return "removed";
  }

  event({ kind, metadata }: EventSubject, note: EventNote): void {
    if (!this.crash.isDead) this.server.note(`${kind} ${renderKey(keyOf({ metadata }))}`, note);
  }

  async #patchMeta<T extends KubeObject>(
    verb: string,
    kind: KindRef<T>,
    object: T,
    change: Readonly<Record<string, unknown>>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const key = keyOf(object);
    return await this.#effect(verb, kind, key, signal, () => {
      const held = this.server.require(kind, key, object.metadata);
      return this.server.change(kind, held, { metadata: { ...held.metadata, ...change } }) as T;
    });
  }

  async #effect<R>(
    verb: string,
    kind: KindRef,
    key: Key,
    signal: AbortSignal | undefined,
    perform: () => R,
  ): Promise<R> {
    this.#check(signal);
    const lost = (name: string) => new KubeError("Unreachable", `${name}: the answer was lost`);
    const result = await this.crash.effect(`${verb} ${kind.kind} ${renderKey(key)}`, perform, lost);
    const object = this.server.get(kind, key);
    if (object !== undefined) this.#stores.get(idOf(kind))?.learn(object);
    return result;
  }

  #check(signal: AbortSignal | undefined): void {
    signal?.throwIfAborted();
    this.crash.check();
  }

  #cache(kind: KindRef): Store {
    this.crash.check();
    const isKnown = this.#kinds?.some((known) => idOf(known) === idOf(kind)) ?? true;
    assert(isKnown, `no controller watches or reads ${kind.kind}, so there is no cache of it`);
    const known = this.#stores.get(idOf(kind));
    if (known !== undefined) return known;
    const store = openStore();
    store.replace(this.server.list(kind), this.server.resourceVersion);
    store.onChange(({ before, after }) => {
      for (const listener of this.#listeners) listener(kind, before, after);
    });
    this.#stores.set(idOf(kind), store);
    return store;
  }

  #deliver(change: FakeChange): void {
    if (this.#heldBack !== undefined) this.#heldBack.push(change);
    else this.#stores.get(idOf(change.kind))?.observe(change.type, change.object);
  }
}

function idOf(kind: KindRef): string {
  return `${apiVersionOf(kind)}/${kind.plural}`;
}
