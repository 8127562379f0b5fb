// The operator framework, loaded so that it works in Node and in Jest alike: it is CommonJS and requires the client library, which is
// an ES module, so that one has to be there first.
import "@kubernetes/client-node";
import { createRequire } from "node:module";
import type * as Framework from "@dot-i/k8s-operator";

const framework = createRequire(import.meta.url)("@dot-i/k8s-operator") as typeof Framework.default;

/** The base class of operators. Its constructor reads the default kubeconfig, so one that is broken makes it throw. */
export const Operator = framework.default;
export const { ResourceEventType, ResourceMetaImpl } = framework;
export type { OperatorLogger, ResourceEvent, ResourceMeta } from "@dot-i/k8s-operator";
