// Who may use what. Foreign clusters see nothing but the migration protocol: anything else does not exist for them.
import { unreachable } from "../base/assert.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Role } from "../domain/identity.ts";
import type { Route, RouteGroup } from "../wire/routes.ts";
import type { Caller } from "./caller.ts";

/** `health`: open to all. `own`: to every role of this cluster. `migratedVolumesRead`: those requests of the group that change nothing. */
export type Access = RouteGroup | "migratedVolumesRead" | "health" | "own";

const everything: readonly Access[] = [
  "own",
  "agent",
  "members",
  "volumes",
  "locations",
  "jobs",
  "sources",
  "migratedVolumes",
  "migratedVolumesRead",
  "clones",
  "changes",
];

/** What the roles of our own cluster may use. */
export const ownRoles: Record<Role, readonly Access[]> = {
  operator: everything,
  admin: everything,
  csi: ["own", "agent", "volumes", "migratedVolumesRead", "clones"],
  agent: ["own", "agent", "jobs", "member"],
};

/** What one must be allowed to use for a route. */
export function accessTo({ group, method }: Pick<Route, "group" | "method">): Access {
  return group === "migratedVolumes" && method === "GET" ? "migratedVolumesRead" : group;
}

/** Why the caller may not use it, `undefined` when it may. `what` names the request for the error's text. */
export function refusal(caller: Caller, access: Access, what: string): LongshoreError | undefined {
  if (access === "health") return undefined;
  switch (caller.kind) {
    case "anonymous":
      return new LongshoreError("Unauthenticated", `${what} needs a client certificate, and none was shown`);
    case "stranger":
      return new LongshoreError(access === "peer" ? "NotConsented" : "Unauthenticated", caller.reason);
    case "foreign":
      return access === "peer" && caller.role === "agent" ? undefined : noSuchRoute(what);
    case "own":
      if (ownRoles[caller.role].includes(access)) return undefined;
      return new LongshoreError("Forbidden", `the role ${caller.role} may not use ${what}`);
    default:
      return unreachable(caller);
  }
}

/** The same words for a route that does not exist and for one that the caller shall not know of. */
export function noSuchRoute(what: string): LongshoreError {
  return new LongshoreError("NotFound", `there is no ${what}`);
}
