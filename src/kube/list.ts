// Whole lists, fetched in pages so that no answer grows with the cluster.
import { assert } from "../base/assert.ts";
import type { Api } from "./api.ts";
import { apiVersionOf, type KindRef, type KubeObject, type ListFilter } from "./cluster.ts";
import { isKubeError, KubeError } from "./errors.ts";
import { isRecord } from "./merge-patch.ts";
import { collectionPath } from "./resource-path.ts";

const pageObjectsMax = 500;

interface Listed {
  readonly objects: readonly KubeObject[];
  /** The state of the cluster that the list shows, all pages alike. */
  readonly resourceVersion: string;
}

/** Everything of a kind, as one consistent state that is not older than the call. */
export async function listAll(
  api: Api,
  kind: KindRef,
  { signal, filter }: { readonly signal?: AbortSignal | undefined; readonly filter?: ListFilter | undefined },
): Promise<Listed> {
  const ask = { path: collectionPath(kind, filter?.namespace), query: queryOf(filter), signal };
  try {
    return await listPages(api, kind, { ...ask, query: { ...ask.query, limit: String(pageObjectsMax) } });
  } catch (error) {
    // The pages' common state was compacted away between two of them: then everything in one answer, which cannot expire.
    if (!isKubeError(error, "Expired")) throw error;
    return await listPages(api, kind, ask);
  }
}

interface Ask {
  readonly path: string;
  readonly query: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal | undefined;
}

function queryOf(filter: ListFilter | undefined): Readonly<Record<string, string | undefined>> {
  const labels = Object.entries(filter?.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return labels.length === 0 ? {} : { labelSelector: labels.join(",") };
}

async function listPages(api: Api, kind: KindRef, { path, query, signal }: Ask): Promise<Listed> {
  const objects: KubeObject[] = [];
  let next: string | undefined;
  for (;;) {
    const answer = await api.request({ method: "GET", path, query: { ...query, continue: next }, signal });
    const page = parsePage(answer, path);
    for (const item of page.items) objects.push(withKind(item, kind));
    if (page.next === "") return { objects, resourceVersion: page.resourceVersion };
    next = page.next;
  }
}

function parsePage(answer: unknown, path: string) {
  const { metadata, items } = isRecord(answer) ? answer : {};
  if (!isRecord(metadata) || typeof metadata.resourceVersion !== "string" || !Array.isArray(items ?? [])) {
    throw new KubeError("Unreachable", `GET ${path}: the answer is not a list`);
  }
  const next = typeof metadata.continue === "string" ? metadata.continue : "";
  return { items: (items ?? []) as readonly unknown[], next, resourceVersion: metadata.resourceVersion };
}

/** An object as the API server gave it; in lists it leaves out what the list says already. */
export function withKind(item: unknown, kind: KindRef): KubeObject {
  assert(isRecord(item) && isRecord(item.metadata), `an object of kind ${kind.kind} without metadata`);
  return { ...item, apiVersion: apiVersionOf(kind), kind: kind.kind } as unknown as KubeObject;
}
