// Names at the agents for what Kubernetes names. The provisioner's and the snapshotter's own names (`pvc-…`, `snapshot-…`) are taken as
// they are, so that people find them; the interface allows names that agents do not take, and those are written in their own way.
import { hash } from "node:crypto";
import { dueOfSnapshot, isCloneSnapshot, isDemandSnapshot } from "../domain/names.ts";

/** Handles are at most 128 bytes long by the specification, and that of a snapshot holds two names. */
const nameLengthMax = 63;
const digestLength = 16;
const agentName = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;

/** Different names never give one; the same name gives the same, for ever. */
export function agentNameOf(name: string): string {
  if (isTakenAsItIs(name)) return name;
  const digest = hash("sha256", name, "hex").slice(0, digestLength);
  const head = name.toLowerCase().replace(/[^a-z0-9-]+/g, "-");
  // No name that is taken as it is has two dots in a row.
  return `csi-${head.slice(0, nameLengthMax - digestLength - "csi-..".length)}..${digest}`;
}

/** Some names have a meaning: a snapshot that a user makes must not pass for one that a schedule, or an agent for itself, made. */
function isTakenAsItIs(name: string): boolean {
  if (isOperators(name) || isCloneSnapshot(name)) return false;
  return name.length <= nameLengthMax && agentName.test(name) && !name.includes("..");
}

/** Whether the operator makes and deletes the snapshots of this name, by a schedule or for a job. */
export function isOperators(snapshot: string): boolean {
  return dueOfSnapshot(snapshot) !== undefined || isDemandSnapshot(snapshot);
}
