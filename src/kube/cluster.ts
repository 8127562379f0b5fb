// What controllers see of Kubernetes: cached reads, fresh reads for destructive acts, and a few effects that are safe to
// repeat. Nothing of the client library shows through. `test/fakes/fake-cluster.ts` is the working fake of it.
import type { KubernetesObject, OwnerReference } from "../api/object.ts";
import type { Log } from "../base/log.ts";

/** Any object as read. Objects from the cache are shared and frozen: never change one, write a new one. */
export type KubeObject = KubernetesObject;

/** Metadata of an object to be written. */
export interface DraftMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly ownerReferences?: readonly OwnerReference[];
}

/** An object of the kind as it shall be; `apiVersion` and `kind` come from the {@link KindRef}, status has its own call. */
export type Draft<T extends KubeObject> = Omit<T, "apiVersion" | "kind" | "metadata" | "status"> & {
  readonly metadata: DraftMeta;
};

/** The type of a kind's status, `never` for kinds without. */
export type StatusOf<T> = T extends { readonly status?: infer S } ? NonNullable<S> : never;

/** Which resource, and by `T` the type of its objects. Made once for each kind, as a constant. */
export interface KindRef<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** It may be that the cluster does not know the kind: then it is as if there were no objects of it, until it does. */
  readonly optional?: boolean;
  /** Carries the type only; never set. */
  readonly type?: T;
}

/** Names one object of a known kind. `namespace` is absent exactly for cluster-scoped kinds. */
export interface Key {
  readonly name: string;
  readonly namespace?: string;
}

/** Finds objects by a value of theirs. Made once, as a constant; it is kept up to date from its first use on. */
export interface Index<T extends KubeObject = KubeObject> {
  readonly kind: KindRef<T>;
  /** The values under which the object is found; pure. */
  valuesOf(object: T): readonly string[];
}

export interface ListFilter {
  readonly namespace?: string;
  /** Every label must be there with this value. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** What an event is about; any object read is one. */
export interface EventSubject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly uid: string };
}

export interface EventNote {
  readonly type: "Normal" | "Warning";
  /** CamelCase, of a short list: it is what people filter by. */
  readonly reason: string;
  /** For people; names the object, what happened and what to do. At most 1000 characters are kept. */
  readonly message: string;
  /**
   * Told once for each object, reason and occasion, whoever tells it again: while its Event is there, a repeat writes
   * nothing, not even of another process. Without one, repeats are counted.
   */
  readonly occasion?: string;
}

/** Identifies an object beyond its name, so that a successor of the same name is never hit. */
export interface Identity extends Key {
  readonly uid: string;
  /** When given, the object must also be unchanged since it was read; otherwise the call fails with `Conflict`. */
  readonly resourceVersion?: string;
}

/**
 * One Kubernetes cluster. Cached reads answer at once and may be behind the API server, though never behind what this
 * process itself has written or read through `read`. Only kinds that some controller watches or reads can be asked for; others are a bug.
 *
 * Effects throw `KubeError` (errors.ts). `Conflict` and `NotFound` need no handling: let them leave the reconcile, which is then
 * done anew from fresh state. After the loss of leadership every effect is refused.
 */
export interface Cluster {
  get<T extends KubeObject>(kind: KindRef<T>, key: Key): T | undefined;
  /** In the order of namespace and name. */
  list<T extends KubeObject>(kind: KindRef<T>, filter?: ListFilter): readonly T[];
  /** The objects that the index files under `value`, in the order of namespace and name. */
  find<T extends KubeObject>(index: Index<T>, value: string): readonly T[];

  /** Asks the API server: for decisions that cannot be taken back. Works for kinds that nobody watches as well. */
  read<T extends KubeObject>(kind: KindRef<T>, key: Key, signal?: AbortSignal): Promise<T | undefined>;
  readList<T extends KubeObject>(kind: KindRef<T>, filter?: ListFilter, signal?: AbortSignal): Promise<readonly T[]>;

  /** Creates if absent. `exists` says nothing about the content of what exists. */
  create<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>, signal?: AbortSignal): Promise<"created" | "exists">;
  /**
   * Makes the object's fields that the draft names be as the draft says, creating it if absent (server-side apply as
   * `longshore`, with force); fields of an earlier apply that the draft no longer names are removed, those of others are
   * left alone. Sends nothing when the same draft was the last one applied and the object has not changed since.
   */
  apply<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>, signal?: AbortSignal): Promise<T>;
  /**
   * Makes the whole status be `status` (what is not in it is removed), judged from `object`, which must be the latest:
   * otherwise `Conflict`. Sends nothing when it is so already. Returns the object as it is then.
   */
  patchStatus<T extends KubeObject>(kind: KindRef<T>, object: T, status: StatusOf<T>, signal?: AbortSignal): Promise<T>;
  /** Sets (or with `null` removes) single annotations of `object`, leaving the rest alone; sends nothing when it is so. */
  patchAnnotations<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    annotations: Readonly<Record<string, string | null>>,
    signal?: AbortSignal,
  ): Promise<T>;
  /** Adds the finalizer to exactly this version of the object; `Conflict` when it changed. There already: nothing is sent. */
  addFinalizer<T extends KubeObject>(kind: KindRef<T>, object: T, finalizer: string, signal?: AbortSignal): Promise<T>;
  /** Removes it from exactly this version of the object; `Conflict` when it changed. Not there, or the object gone: success. */
  removeFinalizer<T extends KubeObject>(
    kind: KindRef<T>,
    object: T,
    finalizer: string,
    signal?: AbortSignal,
  ): Promise<void>;
  /**
   * Asks for deletion of that very object; `gone` when it or its UID is not there. Dependents go in the background. What is
   * deleted is checked by the API server, in the same request: the right to delete is all that it takes.
   */
  remove<T extends KubeObject>(kind: KindRef<T>, identity: Identity, signal?: AbortSignal): Promise<"removed" | "gone">;

  /**
   * Tells people, as an Event on the object. Never fails and never waits: the same event again within its window counts up the one that exists,
   * and past the limits it is dropped (and counted in a metric).
   */
  event(subject: EventSubject, note: EventNote): void;
}

/** What one reconcile may use besides its cluster. */
export interface ReconcileContext {
  /** Aborts when the operator stops or loses its leadership. Pass it to everything that waits. */
  readonly signal: AbortSignal;
  /** Carries the controller's name, the key and `reconcileId`. */
  readonly log: Log;
  /** For the agents' request headers, so that their logs can be joined with ours. */
  readonly reconcileId: string;
}

/**
 * `settled`: nothing to do until something changes. `again`: look again after `afterMs` at the latest, whatever happens;
 * a change before that brings it forward.
 */
export type Outcome = { readonly kind: "settled" } | { readonly kind: "again"; readonly afterMs: number };

export const settled: Outcome = { kind: "settled" };

export function again(afterMs: number): Outcome {
  return { kind: "again", afterMs };
}

/** Another kind whose changes concern objects of a controller's own kind. Make it by {@link watching}. */
export interface Watching {
  readonly kind: KindRef;
  /** The keys to reconcile when this object appears, changes or goes (it is called for the old and the new state); pure. */
  keysOf(object: KubeObject): readonly Key[];
  /** How long changes are gathered before their keys are looked at; not at all unless given. */
  readonly gatherMs?: number;
}

/** Says that a change of an object of `kind` concerns the keys that `keysOf` gives. */
export function watching<T extends KubeObject>(kind: KindRef<T>, keysOf: (object: T) => readonly Key[]): Watching {
  // The informer of `kind` hands over objects of that kind only, so the narrowing holds.
  return { kind, keysOf: (object) => keysOf(object as T) };
}

/**
 * The same, of objects of which many concern one key that goes through them all: it is looked at once a second, however many of them
 * change meanwhile.
 */
export function counting<T extends KubeObject>(kind: KindRef<T>, keysOf: (object: T) => readonly Key[]): Watching {
  return { ...watching(kind, keysOf), gatherMs: 1_000 };
}

/** Maps an object to its owner of the given kind; for `watching(kind, ownerOf(MigrationLocation))`. */
export function ownerOf(kind: KindRef): (object: KubeObject) => readonly Key[] {
  return ({ metadata }) =>
    (metadata.ownerReferences ?? [])
      .filter((owner) => owner.kind === kind.kind && owner.apiVersion === apiVersionOf(kind))
      .map((owner) =>
        kind.namespaced && metadata.namespace !== undefined
          ? { name: owner.name, namespace: metadata.namespace }
          : { name: owner.name },
      );
}

/** Brings objects of one kind towards what they should be. */
export interface Controller {
  /** Unique in the operator; in logs, metrics and {@link Enqueue}. */
  readonly name: string;
  readonly kind: KindRef;
  readonly watches?: readonly Watching[];
  /** Further kinds that it reads from the cache, whose changes do not concern it. */
  readonly reads?: readonly KindRef[];
  /** How many keys of one lane may be reconciled at once; 4 unless given. One key is never reconciled twice at once. */
  readonly concurrency?: number;
  /**
   * What the reconcile of a key may have to wait for, such as an agent: keys that wait for something that hangs take no workers
   * from those that wait for something else. Reads from caches only. Absent: all keys share one lane.
   */
  laneOf?(key: Key): string;
  /**
   * Called for every object after a start and after each resync, and for each change. Must be right whatever state it
   * finds. When it throws, the key is tried again with exponential backoff, which news brings forward by little only.
   */
  reconcile(key: Key, context: ReconcileContext): Promise<Outcome>;
}

/** Asks that a controller looks at a key, for changes that Kubernetes does not know of. Repeats coalesce. */
export type Enqueue = (controller: string, key: Key, afterMs?: number) => void;

/** Something outside Kubernetes that gives keys to look at, such as an agent's change stream. Runs only while leading. */
export interface Source {
  readonly name: string;
  /** Settled once it has told what there was at its beginning; reconciles wait for it, if not for long. Never rejects. */
  readonly ready?: Promise<void>;
  /** Runs until the signal aborts, retrying by itself; when it throws, it is started again after a backoff. */
  run(enqueue: Enqueue, signal: AbortSignal): Promise<void>;
}

/** `apps/v1`, or `v1` for the core group. */
export function apiVersionOf(kind: KindRef): string {
  return kind.group === "" ? kind.version : `${kind.group}/${kind.version}`;
}

/** The key of an object. */
export function keyOf({ metadata }: { readonly metadata: Key }): Key {
  return metadata.namespace === undefined
    ? { name: metadata.name }
    : { name: metadata.name, namespace: metadata.namespace };
}

/** `namespace/name`, or `name`; unique among the keys of one kind. */
export function renderKey({ name, namespace }: Key): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

/**
 * The reference that makes `owner` the controlling owner, so that the object goes when the owner goes. The owner does not wait for
 * it: where OwnerReferencesPermissionEnforcement is on, whoever says so needs a right to the owner's finalizers.
 */
export function controlledBy(owner: KubeObject): OwnerReference {
  const { apiVersion, kind, metadata } = owner;
  return { apiVersion, kind, name: metadata.name, uid: metadata.uid, controller: true, blockOwnerDeletion: false };
}
