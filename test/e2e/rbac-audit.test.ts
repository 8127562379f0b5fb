import { describe, expect, test } from "@jest/globals";
import {
  type AuditEvent,
  eventsOf,
  type Grant,
  grantsOf,
  missing,
  parseAuditLog,
  type RbacObject,
  type Rule,
  rightsOf,
  unusedRules,
} from "./rbac-audit.ts";

const account = { namespace: "longshore-system", name: "longshore-csi" };
const username = "system:serviceaccount:longshore-system:longshore-csi";

/** `VERB GROUP RESOURCE[/SUBRESOURCE] [NAMESPACE/]NAME`, as the API server logs it. */
function event(text: string, more: Partial<AuditEvent> = {}): AuditEvent {
  const [verb = "", group = "", path = "", at = ""] = text.split(" ");
  const [resource = "", subresource] = path.split("/");
  const [namespace, name] = at.includes("/") ? at.split("/") : [undefined, at];
  return {
    stage: "ResponseComplete",
    verb,
    user: { username },
    objectRef: {
      ...(group !== "core" && { apiGroup: group }),
      resource,
      ...(subresource !== undefined && { subresource }),
      ...(namespace !== undefined && { namespace }),
      ...(name !== undefined && name !== "" && { name }),
    },
    responseStatus: { code: 200 },
    annotations: { "authorization.k8s.io/decision": "allow" },
    ...more,
  };
}

const forbidden: Partial<AuditEvent> = {
  responseStatus: { code: 403, message: "…" },
  annotations: { "authorization.k8s.io/decision": "forbid" },
};

/** `VERBS GROUP RESOURCES [NAMES]`, lists with commas. */
function rule(text: string): Rule {
  const [verbs = "", group = "", resources = "", names] = text.split(" ");
  const [apiGroup, list] = [group === "core" ? "" : group, (items: string) => items.split(",")];
  return {
    apiGroups: [apiGroup],
    resources: list(resources),
    verbs: list(verbs),
    ...(names !== undefined && { resourceNames: list(names) }),
  };
}

describe("a right is", () => {
  test.each([
    // rule, event, what is left unused
    ["get core nodes", "get core nodes one", []],
    ["get core nodes", "list core nodes", ["get core nodes"]],
    ["get,list core nodes", "list core nodes", ["get core nodes"]],
    ["list core nodes,pods", "list core nodes", ["list core pods"]],
    ["list apps deployments", "list core deployments", ["list apps deployments"]],
    ["patch core pods/status", "patch core pods shop/one", ["patch core pods/status"]],
    ["patch core pods/status", "patch core pods/status shop/one", []],
    ["get core pods a,b", "get core pods shop/a", ["get core pods b"]],
    ["* core pods", "get core pods shop/a", ["* core pods"]],
  ])("'%s' with '%s' used but for %p", (granted, used, unused) => {
    expect(unusedRules([rule(granted)], [event(used)])).toEqual(unused);
  });

  test("used only where it is granted", () => {
    const grant: Grant = { ...rule("get core pods"), namespace: "longshore-system" };
    expect(unusedRules([grant], [event("get core pods shop/one")])).toEqual(["get core pods in longshore-system"]);
    expect(unusedRules([grant], [event("get core pods longshore-system/one")])).toEqual([]);
  });

  test("used although the object was not there", () => {
    const absent = event("get core nodes one", { responseStatus: { code: 404 } });
    expect(unusedRules([rule("get core nodes")], [absent])).toEqual([]);
  });

  test("not used by who was refused, nor by a request that has only been received", () => {
    const events = [event("get core nodes one", forbidden), event("get core nodes one", { stage: "RequestReceived" })];
    expect(unusedRules([rule("get core nodes")], events)).toEqual(["get core nodes"]);
  });

  test("used by a watch that goes on", () => {
    const events = [event("watch core nodes", { stage: "ResponseStarted" })];
    expect(unusedRules([rule("watch core nodes")], events)).toEqual([]);
  });

  test("that to create when an apply made the object, and not when it was there", () => {
    const apply = (code: number) => event("patch longshore.dev volumemigrations pv1", { responseStatus: { code } });
    const granted = [rule("create,patch longshore.dev volumemigrations")];
    expect(unusedRules(granted, [apply(201)])).toEqual([]);
    expect(unusedRules(granted, [apply(200)])).toEqual(["create longshore.dev volumemigrations"]);
  });

  test("told once, however often it is granted", () => {
    expect(unusedRules([rule("get core nodes"), rule("get core nodes")], [])).toEqual(["get core nodes"]);
  });
});

describe("a right is missing", () => {
  test("when a request was refused, told once with where", () => {
    const events = [
      event("list core pods", forbidden),
      event("create core events shop/one", forbidden),
      event("create core events shop/two", forbidden),
      event("get core nodes one"),
    ];
    expect(missing(events)).toEqual(["create core events in shop", "list core pods"]);
  });

  test("when an apply might patch, and not create", () => {
    const message = 'jobs "a" is forbidden: User "x" cannot create resource "jobs"';
    const refused = event("patch batch jobs shop/a", { responseStatus: { code: 403, message } });
    expect(missing([refused])).toEqual(["patch batch jobs in shop"]);
  });

  test("not when a namespace is going", () => {
    const message = "unable to create new content in namespace shop because it is being terminated";
    expect(missing([event("create core events shop/one", { responseStatus: { code: 403, message } })])).toEqual([]);
  });
});

describe("the grants of an account", () => {
  const bound = { kind: "ServiceAccount", ...account };
  const objects: RbacObject[] = [
    { kind: "ClusterRole", metadata: { name: "nodes" }, rules: [rule("get core nodes")] },
    { kind: "ClusterRole", metadata: { name: "others" }, rules: [rule("get core secrets")] },
    { kind: "Role", metadata: { name: "pods", namespace: "longshore-system" }, rules: [rule("get core pods")] },
    { kind: "Role", metadata: { name: "pods", namespace: "elsewhere" }, rules: [rule("delete core pods")] },
    {
      kind: "ClusterRoleBinding",
      metadata: { name: "nodes" },
      roleRef: { kind: "ClusterRole", name: "nodes" },
      subjects: [bound],
    },
    {
      kind: "ClusterRoleBinding",
      metadata: { name: "others" },
      roleRef: { kind: "ClusterRole", name: "others" },
      subjects: [{ ...bound, name: "somebody" }],
    },
    {
      kind: "RoleBinding",
      metadata: { name: "pods", namespace: "longshore-system" },
      roleRef: { kind: "Role", name: "pods" },
      subjects: [bound],
    },
  ];

  test("are those of the roles that are bound to it, in the namespace of the binding", () => {
    expect(grantsOf(objects, account)).toEqual([
      rule("get core nodes"),
      { ...rule("get core pods"), namespace: "longshore-system" },
    ]);
  });

  test("are none for an account that nothing is bound to", () => {
    expect(grantsOf(objects, { ...account, namespace: "elsewhere" })).toEqual([]);
  });
});

test("rights without their names are what a recorder of requests sees", () => {
  expect([...rightsOf([rule("get,list core nodes"), rule("get coordination.k8s.io leases a,b")])]).toEqual([
    "get core nodes",
    "list core nodes",
    "get coordination.k8s.io leases",
  ]);
});

test("a log is read by its lines, those of one account apart, without one that is cut off", () => {
  const mine = event("get core nodes one");
  const other = event("get core nodes two", { user: { username: "admin" } });
  const log = `${JSON.stringify(mine)}\n${JSON.stringify(other)}\n{"kind":"Ev`;
  expect(parseAuditLog(log)).toEqual([mine, other]);
  expect(eventsOf(parseAuditLog(log), account)).toEqual([mine]);
  expect(parseAuditLog("")).toEqual([]);
});
