// Rights that are granted, compared with those that are used, as the API server's audit log tells it. Pure: whoever has manifests
// and a log asks whether a role grants what nobody uses, or lacks what somebody asked for.

export interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}

/** A rule as it reaches a service account: through a RoleBinding it holds in that one namespace. */
export interface Grant extends Rule {
  readonly namespace?: string;
}

/** What is looked at of an object of rbac.authorization.k8s.io/v1; others have none of it. */
export interface RbacObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly Rule[];
  readonly roleRef?: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly Subject[];
}

interface Subject {
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
}

export interface Account {
  readonly namespace: string;
  readonly name: string;
}

/** What is looked at of an event of audit.k8s.io/v1, from level Metadata on. */
export interface AuditEvent {
  readonly stage: string;
  readonly verb: string;
  readonly user: { readonly username: string };
  readonly objectRef?: {
    readonly apiGroup?: string;
    readonly resource?: string;
    readonly subresource?: string;
    readonly namespace?: string;
    readonly name?: string;
  };
  readonly responseStatus?: { readonly code?: number; readonly message?: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The rights in some rules, such as `patch longshore.dev migrationjobs/status`. */
export function rightsOf(rules: readonly Rule[]): Set<string> {
  return new Set(rules.flatMap(rightsIn).map(({ verb, group, resource }) => textOf({ verb, group, resource })));
}

/** What the roles among `objects` grant a service account. */
export function grantsOf(objects: readonly RbacObject[], { namespace, name }: Account): Grant[] {
  const isBound = ({ subjects = [] }: RbacObject) =>
    subjects.some((one) => one.kind === "ServiceAccount" && one.name === name && one.namespace === namespace);
  return objects.filter(isBound).flatMap((binding) => {
    const { roleRef, metadata } = binding;
    const isIt = (role: RbacObject) =>
      role.kind === roleRef?.kind &&
      role.metadata.name === roleRef.name &&
      (role.kind === "ClusterRole" || role.metadata.namespace === metadata.namespace);
    const within = binding.kind === "RoleBinding" && metadata.namespace !== undefined;
    const scope = within ? { namespace: String(metadata.namespace) } : {};
    return objects.filter(isIt).flatMap(({ rules = [] }) => rules.map((rule) => ({ ...rule, ...scope })));
  });
}

/** Reads a log of one event a line. A last line that is still being written is left out. */
export function parseAuditLog(text: string): AuditEvent[] {
  const lines = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as AuditEvent);
}

/** The events of one service account. */
export function eventsOf(events: readonly AuditEvent[], { namespace, name }: Account): AuditEvent[] {
  return events.filter(({ user }) => user.username === `system:serviceaccount:${namespace}:${name}`);
}

/**
 * What is granted and was never used, each by verb, group and resource, and by name and namespace where it is granted for one.
 * A rule for several names is used when each of them is.
 */
export function unusedRules(rules: readonly Grant[], events: readonly AuditEvent[]): string[] {
  const used = events.filter(isAllowed).flatMap(usesOf);
  const unused = rules.flatMap(rightsIn).filter((right) => !used.some((use) => isUse(use, right)));
  return [...new Set(unused.map(textOf))].sort();
}

function isUse(use: Right, { verb, group, resource, name, namespace }: Right): boolean {
  return (
    use.verb === verb &&
    use.group === group &&
    use.resource === resource &&
    (name === undefined || use.name === name) &&
    (namespace === undefined || use.namespace === namespace)
  );
}

/** What was asked for and refused for want of a right, each once. */
export function missing(events: readonly AuditEvent[]): string[] {
  const refused = events.filter(isRefused).map((event) => ({ ...useOf(event), name: undefined }));
  return [...new Set(refused.map(textOf))].sort();
}

interface Right {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly name?: string | undefined;
  readonly namespace?: string | undefined;
}

function rightsIn({ apiGroups, resources, verbs, resourceNames, namespace }: Grant): Right[] {
  const names = resourceNames ?? [undefined];
  return apiGroups.flatMap((group) =>
    resources.flatMap((resource) =>
      verbs.flatMap((verb) => names.map((name): Right => ({ verb, group, resource, name, namespace }))),
    ),
  );
}

/** A server-side apply that made the object used the right to create as well. */
function usesOf(event: AuditEvent): Right[] {
  const use = useOf(event);
  const isMade = event.verb === "patch" && event.responseStatus?.code === 201;
  return isMade ? [use, { ...use, verb: "create" }] : [use];
}

function useOf({ verb, objectRef }: AuditEvent): Right {
  const { apiGroup: group = "", resource: whole = "", subresource, namespace, name } = objectRef ?? {};
  const resource = subresource === undefined ? whole : `${whole}/${subresource}`;
  return { verb, group, resource, namespace, name };
}

const decision = "authorization.k8s.io/decision";

/** Whether the rights sufficed; what came of it otherwise does not matter. A request is told at its start as well. */
function isAllowed({ stage, annotations }: AuditEvent): boolean {
  return stage !== "RequestReceived" && annotations?.[decision] === "allow";
}

/** A namespace that is going refuses with the same status, but not for want of a right. */
function isRefused({ stage, annotations, responseStatus }: AuditEvent): boolean {
  if (stage === "RequestReceived") return false;
  return annotations?.[decision] === "forbid" || / is forbidden: User "/.test(responseStatus?.message ?? "");
}

function textOf({ verb, group, resource, name, namespace }: Right): string {
  const which = name === undefined ? "" : ` ${name}`;
  const where = namespace === undefined ? "" : ` in ${namespace}`;
  return `${verb} ${group === "" ? "core" : group} ${resource}${which}${where}`;
}
