// The cache of one kind's objects, with indexes. It takes news from three sides (lists, watch lines, answers to our own writes)
// that overtake each other, and never goes back in time for an object: resourceVersions of one resource grow with every write.
import { assert } from "../base/assert.ts";
import { type Index, type Key, type KubeObject, keyOf, type ListFilter, renderKey } from "./cluster.ts";
import { isRecord } from "./merge-patch.ts";

/** Called for each change: `before` is absent for a new object, `after` for one that is gone. Must not throw. */
export type ChangeListener = (change: { readonly before?: KubeObject; readonly after?: KubeObject }) => void;

export interface Store {
  get(key: Key): KubeObject | undefined;
  list(filter?: ListFilter): readonly KubeObject[];
  find(index: Index, value: string): readonly KubeObject[];
  onChange(listener: ChangeListener): void;

  /** A full list as of `resourceVersion`: what is not in it is gone, unless it was written after that. */
  replace(objects: readonly KubeObject[], resourceVersion: string): void;
  /** A line of the watch, in its order. */
  observe(type: "ADDED" | "MODIFIED" | "DELETED", object: KubeObject): void;
  /** An answer to a read or write of our own, which the watch may have told already, or will. */
  learn(object: KubeObject): void;
  /** The answer to a deletion of our own that took effect at once. */
  forget(identity: { readonly key: Key; readonly uid: string }): void;
  /** The watch has told everything up to here. */
  reached(resourceVersion: string): void;
}

export function openStore(): Store {
  return new ObjectStore();
}

class ObjectStore implements Store {
  readonly #objects = new Map<string, KubeObject>();
  readonly #filed = new Map<Index, Map<string, Map<string, KubeObject>>>();
  readonly #listeners: ChangeListener[] = [];
  /** UIDs of objects that we saw deleted before the watch told so; what it still tells of them is old. */
  readonly #gone = new Set<string>();
  /** The names of all objects in order, and the objects beside them, so that a list after each of many changes need not sort. */
  readonly #names: string[] = [];
  readonly #ordered: KubeObject[] = [];
  #sorted: readonly KubeObject[] | undefined;
  #reached = "0";

  get(key: Key): KubeObject | undefined {
    return this.#objects.get(renderKey(key));
  }

  list(filter: ListFilter = {}): readonly KubeObject[] {
    this.#sorted ??= Object.freeze(this.#ordered.slice());
    const { namespace, labels = {} } = filter;
    const wanted = Object.entries(labels);
    if (namespace === undefined && wanted.length === 0) return this.#sorted;
    return this.#sorted.filter((object) => matches(object, namespace, wanted));
  }

  find(index: Index, value: string): readonly KubeObject[] {
    return sorted(this.#index(index).get(value) ?? new Map());
  }

  onChange(listener: ChangeListener): void {
    this.#listeners.push(listener);
  }

  replace(objects: readonly KubeObject[], resourceVersion: string): void {
    // A list is never behind the watch, unless the whole cluster was restored from a backup: then what we hold is void.
    const isRestored = isOlder(resourceVersion, this.#reached);
    const listed = new Map(objects.map((object) => [renderKey(keyOf(object)), object]));
    for (const [name, { metadata }] of this.#objects) {
      const isWrittenSince = !isOlder(metadata.resourceVersion, resourceVersion);
      if (isRestored || !(listed.has(name) || isWrittenSince)) this.#set(name, undefined);
    }
    this.#gone.clear();
    // In order, so that each one is added at the end and not into the middle of a long list.
    for (const object of sorted(listed)) this.#take(object);
    this.#reached = resourceVersion;
  }

  observe(type: "ADDED" | "MODIFIED" | "DELETED", object: KubeObject): void {
    this.reached(object.metadata.resourceVersion);
    if (type === "DELETED") this.#bury(object);
    else this.#take(object);
  }

  learn(object: KubeObject): void {
    // What the watch has passed, it has told, and perhaps a deletion after it: taking it would wake the dead.
    if (isOlder(object.metadata.resourceVersion, this.#reached)) return;
    this.#take(object);
  }

  forget({ key, uid }: { readonly key: Key; readonly uid: string }): void {
    if (this.get(key)?.metadata.uid !== uid) return;
    this.#gone.add(uid);
    this.#set(renderKey(key), undefined);
  }

  reached(resourceVersion: string): void {
    if (isOlder(this.#reached, resourceVersion)) this.#reached = resourceVersion;
  }

  #bury(object: KubeObject): void {
    this.#gone.delete(object.metadata.uid);
    // A successor of the same name, which we made ourselves and know already, is not what was deleted.
    const held = this.get(keyOf(object));
    if (held?.metadata.uid === object.metadata.uid) this.#set(renderKey(keyOf(object)), undefined);
  }

  #take(object: KubeObject): void {
    if (this.#gone.has(object.metadata.uid)) return;
    const name = renderKey(keyOf(object));
    const held = this.#objects.get(name);
    if (held !== undefined && !isOlder(held.metadata.resourceVersion, object.metadata.resourceVersion)) return;
    this.#set(name, slim(object));
  }

  #set(name: string, after: KubeObject | undefined): void {
    const before = this.#objects.get(name);
    this.#put(name, before, after);
    for (const [index, filed] of this.#filed) refile(index, filed, { name, before, after });
    const change = { ...(before && { before }), ...(after && { after }) };
    for (const listener of this.#listeners) listener(change);
  }

  #put(name: string, before: KubeObject | undefined, after: KubeObject | undefined): void {
    const place = placeOf(this.#names, name);
    const replaced = before === undefined ? 0 : 1;
    if (after === undefined) {
      this.#objects.delete(name);
      this.#names.splice(place, replaced);
      this.#ordered.splice(place, replaced);
    } else {
      this.#objects.set(name, after);
      this.#names.splice(place, replaced, name);
      this.#ordered.splice(place, replaced, after);
    }
    this.#sorted = undefined;
  }

  #index(index: Index): Map<string, Map<string, KubeObject>> {
    const known = this.#filed.get(index);
    if (known !== undefined) return known;
    const filed = new Map<string, Map<string, KubeObject>>();
    for (const [name, after] of this.#objects) refile(index, filed, { name, before: undefined, after });
    this.#filed.set(index, filed);
    return filed;
  }
}

interface Refiling {
  readonly name: string;
  readonly before: KubeObject | undefined;
  readonly after: KubeObject | undefined;
}

function refile(index: Index, filed: Map<string, Map<string, KubeObject>>, { name, before, after }: Refiling): void {
  for (const value of before === undefined ? [] : index.valuesOf(before)) {
    const under = filed.get(value);
    under?.delete(name);
    if (under?.size === 0) filed.delete(value);
  }
  for (const value of after === undefined ? [] : index.valuesOf(after)) {
    const under = filed.get(value) ?? new Map<string, KubeObject>();
    if (after !== undefined) under.set(name, after);
    filed.set(value, under);
  }
}

/** Whether resourceVersion `left` is before `right`. Kubernetes' are decimal numbers that may not fit into a double. */
export function isOlder(left: string, right: string): boolean {
  assert(/^\d+$/.test(left) && /^\d+$/.test(right), `resourceVersions that are no numbers: ${left}, ${right}`);
  return left.length === right.length ? left < right : left.length < right.length;
}

/** Where the name is in the sorted list, or belongs. */
function placeOf(names: readonly string[], name: string): number {
  let [low, high] = [0, names.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((names[middle] ?? "") < name) low = middle + 1;
    else high = middle;
  }
  return low;
}

function sorted(objects: ReadonlyMap<string, KubeObject>): readonly KubeObject[] {
  const names = [...objects.keys()].sort();
  return Object.freeze(names.flatMap((name) => objects.get(name) ?? []));
}

function matches(
  { metadata }: KubeObject,
  namespace: string | undefined,
  labels: readonly (readonly [string, string])[],
): boolean {
  if (namespace !== undefined && metadata.namespace !== namespace) return false;
  return labels.every(([name, value]) => metadata.labels?.[name] === value);
}

/** Without the bookkeeping of field managers, which may outweigh the object, and frozen, for it is shared. */
export function slim(object: KubeObject): KubeObject {
  if (Object.isFrozen(object)) return object;
  const { managedFields: _, ...metadata } = object.metadata as KubeObject["metadata"] & { managedFields?: unknown };
  return deepFreeze({ ...object, metadata });
}

function deepFreeze<T>(value: T): T {
  if (Object.isFrozen(value)) return value;
  if (Array.isArray(value)) value.forEach(deepFreeze);
  else if (isRecord(value)) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}
