// The state of an API server, in memory: what clusters are connected to, and what users and other controllers change behind
// their backs. It keeps the rules that controllers rely on: resourceVersions, UIDs, generations, finalizers, owners.
import type { Clock } from "../../src/base/clock.ts";
import { seededDice } from "../../src/base/dice.ts";
import {
  apiVersionOf,
  type Draft,
  type Key,
  type KindRef,
  type KubeObject,
  keyOf,
  renderKey,
} from "../../src/kube/cluster.ts";
import { renderTime } from "../../src/kube/conditions.ts";
import { KubeError } from "../../src/kube/errors.ts";
import { applyMergePatch, isRecord, isSameJson } from "../../src/kube/merge-patch.ts";
import { slim } from "../../src/kube/store.ts";
import { FakeClock } from "./fake-clock.ts";

export interface FakeEvent {
  /** `Kind namespace/name`. */
  readonly about: string;
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  /** The newest one. */
  readonly message: string;
  readonly count: number;
}

interface Occasional {
  readonly occasion?: string;
}

export interface FakeChange {
  readonly kind: KindRef;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: KubeObject;
}

/** Who must be there for an effect to take place. */
export interface Precondition {
  readonly uid?: string | undefined;
  readonly resourceVersion?: string | undefined;
}

type Plain = Readonly<Record<string, unknown>>;

export class FakeKubernetes {
  readonly clock: Clock;
  readonly events = new Map<string, FakeEvent>();
  readonly #dice = seededDice(1);
  readonly #kinds = new Map<string, KindRef>();
  readonly #objects = new Map<string, Map<string, KubeObject>>();
  /** What each manager applied last, by UID and manager. */
  readonly #applied = new Map<string, unknown>();
  readonly #listeners = new Set<(change: FakeChange) => void>();
  #version = 0;

  constructor(clock: Clock = new FakeClock()) {
    this.clock = clock;
  }

  get resourceVersion(): string {
    return String(this.#version);
  }

  get<T extends KubeObject>(kind: KindRef<T>, key: Key): T | undefined {
    return this.#table(kind).get(renderKey(key)) as T | undefined;
  }

  /** In the order of namespace and name. */
  list<T extends KubeObject>(kind: KindRef<T>): readonly T[] {
    const table = this.#table(kind);
    return [...table.keys()].sort().map((name) => table.get(name) as T);
  }

  /** Everything there is, as `Kind namespace/name` and content without what differs from run to run. */
  summary(): Readonly<Record<string, unknown>> {
    const rows = [...this.#kinds.values()].flatMap((kind) =>
      this.list(kind).map((object): [string, unknown] => [`${kind.kind} ${renderKey(keyOf(object))}`, lasting(object)]),
    );
    return Object.fromEntries(rows.sort(([left], [right]) => (left < right ? -1 : 1)));
  }

  /** Called for every change from now on, before the call that made it returns; returns what ends that. */
  onChange(listener: (change: FakeChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Creates; `AlreadyExists` when there is one. A status is ignored, as by kinds with a status subresource. */
  create<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>): T {
    const key = keyOf(draft);
    if (this.get(kind, key) !== undefined) {
      throw new KubeError("Conflict", `${kind.kind} ${renderKey(key)} already exists`, { reason: "AlreadyExists" });
    }
    const { status: _, ...content } = draft as Plain;
    const metadata = {
      ...draft.metadata,
      uid: this.#dice.uuid(),
      creationTimestamp: renderTime(this.clock.nowMs()),
      generation: 1,
    };
    return this.#store(kind, { ...content, metadata, apiVersion: apiVersionOf(kind), kind: kind.kind }) as T;
  }

  /** Server-side apply by `manager`, with force; users apply as `user`. */
  apply<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>, manager = "user"): T {
    const held = this.get(kind, keyOf(draft)) ?? this.create(kind, draft);
    const { status: _, ...wanted } = draft as Plain;
    const owned = `${held.metadata.uid} ${manager}`;
    const pruned = withoutAbandoned(held, this.#applied.get(owned), wanted) as Plain;
    const { metadata: before, ...rest } = pruned as Plain & { metadata: Plain };
    const metadata = mergedMeta(before, draft.metadata as unknown as Plain);
    this.#applied.set(owned, wanted);
    const { metadata: __, ...content } = wanted;
    return this.#replace(kind, held, { ...(applyMergePatch(rest, content) as Plain), metadata }) as T;
  }

  /** Changes what a user may change, by a merge patch; `NotFound` when it is not there. */
  edit<T extends KubeObject>(kind: KindRef<T>, key: Key, patch: Plain): T {
    const { status: _, ...content } = patch;
    const held = this.require(kind, key);
    return this.#replace(kind, held, applyMergePatch(held, content) as Plain) as T;
  }

  /** Sets the whole status, as the controller that owns it does. */
  setStatus<T extends KubeObject>(kind: KindRef<T>, key: Key, status: unknown, precondition: Precondition = {}): T {
    const held = this.require(kind, key, precondition);
    return this.change(kind, held, { status }) as T;
  }

  /** Asks for deletion, in the background; `NotFound` when it is not there. */
  delete(kind: KindRef, key: Key, precondition: Precondition = {}): void {
    const held = this.require(kind, key, precondition);
    if (held.metadata.deletionTimestamp !== undefined) return;
    const deletionTimestamp = renderTime(this.clock.nowMs());
    const generation = (held.metadata.generation ?? 0) + 1;
    this.#store(kind, { ...held, metadata: { ...held.metadata, deletionTimestamp, generation } });
  }

  /** The object, if it meets the precondition. */
  require<T extends KubeObject>(kind: KindRef<T>, key: Key, { uid, resourceVersion }: Precondition = {}): T {
    const held = this.get(kind, key);
    const what = `${kind.kind} ${renderKey(key)}`;
    if (held === undefined) throw new KubeError("NotFound", `${what} not found`);
    const isSame = uid === undefined || uid === held.metadata.uid;
    const isUnchanged = resourceVersion === undefined || resourceVersion === held.metadata.resourceVersion;
    if (!isSame || !isUnchanged) throw new KubeError("Conflict", `${what} has been modified`, { reason: "Conflict" });
    return held;
  }

  /** Replaces whole fields at the top; nothing happens when they say the same. */
  change(kind: KindRef, held: KubeObject, fields: Plain): KubeObject {
    return this.#replace(kind, held, { ...held, ...fields });
  }

  #replace(kind: KindRef, held: KubeObject, next: Plain): KubeObject {
    if (isSameJson(held, next)) return held;
    const isSpecChanged = !isSameJson(contentOf(held as unknown as Plain), contentOf(next));
    const generation = (held.metadata.generation ?? 0) + (isSpecChanged ? 1 : 0);
    return this.#store(kind, { ...next, metadata: { ...(next.metadata as Plain), generation } });
  }

  /** Notes an event, counting up one of the same reason about the same object; of one occasion only the first counts. */
  note(about: string, { type, reason, message, occasion }: Omit<FakeEvent, "about" | "count"> & Occasional): void {
    const id = [about, type, reason, ...(occasion === undefined ? [] : [occasion])].join(" ");
    const count = (this.events.get(id)?.count ?? 0) + 1;
    if (count > 1 && occasion !== undefined) return;
    this.events.set(id, { about, type, reason, message, count });
  }

  #store(kind: KindRef, content: Plain): KubeObject {
    this.#version++;
    const metadata = { ...(content.metadata as Plain), resourceVersion: String(this.#version) };
    const object = slim(structuredClone(withoutUndefined({ ...content, metadata })) as unknown as KubeObject);
    const table = this.#table(kind);
    const name = renderKey(keyOf(object));
    const isGone = object.metadata.deletionTimestamp !== undefined && (object.metadata.finalizers ?? []).length === 0;
    const present = table.has(name) ? "MODIFIED" : "ADDED";
    if (isGone) table.delete(name);
    else table.set(name, object);
    for (const listener of this.#listeners) listener({ kind, type: isGone ? "DELETED" : present, object });
    if (isGone) this.#collect(object.metadata.uid);
    return object;
  }

  /** Deletes what the object that is gone was the last owner of. */
  #collect(ownerUid: string): void {
    for (const kind of this.#kinds.values()) {
      for (const object of this.list(kind)) {
        const { ownerReferences = [], ...metadata } = object.metadata;
        const left = ownerReferences.filter(({ uid }) => uid !== ownerUid);
        if (left.length === ownerReferences.length) continue;
        if (left.length === 0) this.delete(kind, keyOf(object));
        else this.#store(kind, { ...object, metadata: { ...metadata, ownerReferences: left } });
      }
    }
  }

  #table(kind: KindRef): Map<string, KubeObject> {
    const id = `${apiVersionOf(kind)}/${kind.plural}`;
    const table = this.#objects.get(id) ?? new Map<string, KubeObject>();
    this.#objects.set(id, table);
    this.#kinds.set(id, kind);
    return table;
  }
}

/** What counts for the generation. */
function contentOf({ metadata: _, status: __, ...content }: Plain): Plain {
  return content;
}

/** Without the fields that the manager had applied and no longer names. */
function withoutAbandoned(held: unknown, before: unknown, after: unknown): unknown {
  if (!isRecord(held) || !isRecord(before)) return held;
  const named = isRecord(after) ? after : {};
  const kept: [string, unknown][] = [];
  for (const [name, value] of Object.entries(held)) {
    const isAbandoned = name in before && !(name in named);
    if (!isAbandoned) kept.push([name, withoutAbandoned(value, before[name], named[name])]);
    else if (isRecord(value) && isRecord(before[name])) {
      const rest = withoutAbandoned(value, before[name], {});
      if (isRecord(rest) && Object.keys(rest).length > 0) kept.push([name, rest]);
    }
  }
  return Object.fromEntries(kept);
}

/** Finalizers are a set and owners are keyed by UID, for the API server; everything else is replaced. */
function mergedMeta(before: Plain, draft: Plain): Plain {
  const merged = applyMergePatch(before, draft) as Record<string, unknown>;
  const finalizers = union(before.finalizers, draft.finalizers, (name) => name);
  const owners = union(before.ownerReferences, draft.ownerReferences, (owner) => (owner as { uid: string }).uid);
  return {
    ...merged,
    ...(finalizers.length > 0 && { finalizers }),
    ...(owners.length > 0 && { ownerReferences: owners }),
  };
}

function union(before: unknown, draft: unknown, idOf: (item: unknown) => unknown): readonly unknown[] {
  const all = [...((before as unknown[] | undefined) ?? []), ...((draft as unknown[] | undefined) ?? [])];
  return [...new Map(all.map((item) => [idOf(item), item])).values()];
}

function withoutUndefined(value: Plain): Plain {
  return applyMergePatch({}, value) as Plain;
}

/** An object without what no two runs have in common. */
function lasting(object: KubeObject): unknown {
  const { uid: _, resourceVersion: __, creationTimestamp: ___, generation: ____, ...metadata } = object.metadata;
  const owners = metadata.ownerReferences?.map(({ uid: _____, ...owner }) => owner);
  return { ...object, metadata: { ...metadata, ...(owners && { ownerReferences: owners }) } };
}
