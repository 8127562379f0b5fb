// Where an object lives in the API server's tree of paths.
import { assert } from "../base/assert.ts";
import { apiVersionOf, type Key, type KindRef } from "./cluster.ts";

/** The path of a kind's collection: of one namespace, or of all when none is given. */
export function collectionPath(kind: KindRef, namespace?: string): string {
  const root = kind.group === "" ? `/api/${kind.version}` : `/apis/${apiVersionOf(kind)}`;
  if (namespace === undefined) return `${root}/${kind.plural}`;
  assert(kind.namespaced, `${kind.kind} has no namespaces, yet ${namespace} was asked for`);
  return `${root}/namespaces/${encodeURIComponent(namespace)}/${kind.plural}`;
}

/** The path of one object. A key without a namespace for a namespaced kind, or the reverse, is a bug. */
export function objectPath(kind: KindRef, { name, namespace }: Key, subresource?: "status"): string {
  assert(name !== "", `a ${kind.kind} without a name`);
  assert(kind.namespaced === (namespace !== undefined), `the key of ${kind.kind} ${name} has the wrong scope`);
  const path = `${collectionPath(kind, namespace)}/${encodeURIComponent(name)}`;
  return subresource === undefined ? path : `${path}/${subresource}`;
}
