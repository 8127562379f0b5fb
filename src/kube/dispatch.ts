// Which controller looks at which key when an object changes: its own kind's by the object's own key, others by what their
// watches make of the object, as it was and as it is.
import type { Log } from "../base/log.ts";
import { type Controller, type Enqueue, type Key, type KindRef, type KubeObject, keyOf, renderKey } from "./cluster.ts";
import type { ControllerRunner } from "./controller-runner.ts";
import { kindId } from "./longshore-operator.ts";

export interface Dispatch {
  /** For a source outside Kubernetes; a controller that does not exist is a bug. */
  readonly enqueue: Enqueue;
  changed(kind: KindRef, before: KubeObject | undefined, after: KubeObject | undefined): void;
  /** Brings up all objects of a controller's own kind. */
  listed(kind: KindRef, objects: readonly KubeObject[]): void;
}

interface Route {
  readonly runner: ControllerRunner;
  keysOf(object: KubeObject): readonly Key[];
  readonly gatherMs?: number;
}

export function openDispatch(runners: readonly ControllerRunner[], log: Log): Dispatch {
  const routes = routesOf(runners);
  const byName = new Map(runners.map((runner) => [runner.controller.name, runner]));
  if (byName.size !== runners.length) throw new TypeError("two controllers have the same name");
  return {
    enqueue(controller, key, afterMs) {
      const runner = byName.get(controller);
      if (runner === undefined) throw new TypeError(`there is no controller named ${controller}`);
      runner.enqueue(key, afterMs);
    },
    changed(kind, before, after) {
      for (const route of routes.get(kindId(kind)) ?? []) {
        for (const key of keysOfChange(route, [before, after], log)) route.runner.enqueue(key, route.gatherMs);
      }
    },
    listed(kind, objects) {
      for (const runner of runners) {
        if (kindId(runner.controller.kind) !== kindId(kind)) continue;
        for (const object of objects) runner.enqueue(keyOf(object));
      }
    },
  };
}

/** Every kind that the controllers need in the cache, each once. */
export function kindsOf(controllers: readonly Controller[]): readonly KindRef[] {
  const kinds = new Map<string, KindRef>();
  for (const { kind, watches = [], reads = [] } of controllers) {
    for (const needed of [kind, ...watches.map((watching) => watching.kind), ...reads]) {
      kinds.set(kindId(needed), needed);
    }
  }
  return [...kinds.values()];
}

function routesOf(runners: readonly ControllerRunner[]): ReadonlyMap<string, readonly Route[]> {
  const routes = new Map<string, Route[]>();
  const add = (kind: KindRef, route: Route) => routes.set(kindId(kind), [...(routes.get(kindId(kind)) ?? []), route]);
  for (const runner of runners) {
    add(runner.controller.kind, { runner, keysOf: (object) => [keyOf(object)] });
    for (const { kind, ...how } of runner.controller.watches ?? []) add(kind, { runner, ...how });
  }
  return routes;
}

function keysOfChange(route: Route, states: readonly (KubeObject | undefined)[], log: Log): readonly Key[] {
  const keys = new Map<string, Key>();
  for (const state of states) {
    for (const key of state === undefined ? [] : keysOrNone(route, state, log)) keys.set(renderKey(key), key);
  }
  return [...keys.values()];
}

/** A mapping that fails on one object must not stop the cache of its kind. */
function keysOrNone(route: Route, object: KubeObject, log: Log): readonly Key[] {
  try {
    return route.keysOf(object);
  } catch (error) {
    const fields = {
      controller: route.runner.controller.name,
      kind: object.kind,
      key: renderKey(keyOf(object)),
      err: error,
    };
    log.error(fields, "change could not be mapped to keys");
    return [];
  }
}
