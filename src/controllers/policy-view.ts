// The policy of one volume as its class, itself and its claim say it now: what the PersistentVolume's reconciler writes
// into the VolumeMigration, and what the VolumeMigration's reconciler judges.
import type { PersistentVolume, PersistentVolumeClaim, StorageClass } from "../api/core.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { type PolicyFacts, type ResolvedPolicy, resolvePolicy, settingNames } from "../domain/policy.ts";
import type { Cluster } from "../kube/cluster.ts";
import { PersistentVolumeClaims, StorageClasses } from "./kinds.ts";
import { present } from "./status-parts.ts";

export interface PolicyView {
  readonly resolved: ResolvedPolicy;
  readonly claim: PersistentVolumeClaim | undefined;
  readonly className: string | undefined;
  /** The volume names a class that does not exist: what the class said the last time goes on. */
  readonly isClassMissing: boolean;
}

/** Reads from the cache. `existing` is the volume's VolumeMigration, which remembers what a class that is gone has said. */
export function observePolicy(
  cluster: Cluster,
  volume: PersistentVolume,
  existing: VolumeMigration | undefined,
): PolicyView {
  const className = volume.spec.storageClassName || undefined;
  const storageClass = className === undefined ? undefined : cluster.get(StorageClasses, { name: className });
  const isClassMissing = className !== undefined && storageClass === undefined;
  const claim = claimOf(cluster, volume);
  const said =
    storageClass === undefined ? isClassMissing && remembered(className, existing) : classFacts(storageClass);
  const facts: PolicyFacts = {
    volume: present({ name: volume.metadata.name, annotations: volume.metadata.annotations }),
    ...(said && { class: said }),
    ...(claim && { claim: claimFacts(claim) }),
  };
  const resolved = resolvePolicy(facts);
  return { resolved: isClassMissing ? withOrigins(resolved, existing) : resolved, claim, className, isClassMissing };
}

function claimOf(cluster: Cluster, { spec }: PersistentVolume): PersistentVolumeClaim | undefined {
  const { namespace, name, uid } = spec.claimRef ?? {};
  if (namespace === undefined || name === undefined) return undefined;
  const claim = cluster.get(PersistentVolumeClaims, { namespace, name });
  // A claim that was made anew under the name is not the one that the volume is bound to.
  return claim !== undefined && (uid === undefined || claim.metadata.uid === uid) ? claim : undefined;
}

function claimFacts({ metadata }: PersistentVolumeClaim): NonNullable<PolicyFacts["claim"]> {
  return {
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    ...present({ annotations: metadata.annotations }),
  };
}

function classFacts({ metadata, parameters }: StorageClass): NonNullable<PolicyFacts["class"]> {
  return { name: metadata.name, ...present({ parameters, annotations: metadata.annotations }) };
}

/** What a class that is gone said, as far as the VolumeMigration remembers it. */
function remembered(name: string, existing: VolumeMigration | undefined): PolicyFacts["class"] | undefined {
  if (existing === undefined) return undefined;
  const { enabled, locations, schedule } = existing.spec.policy;
  const parameters = {
    migrationEnable: String(enabled),
    migrationLocations: locations.join(","),
    ...(schedule !== undefined && { schedulePolicy: schedule }),
  };
  return { name, parameters };
}

/** The origins as they were, where they are those of the class that is gone. */
function withOrigins(resolved: ResolvedPolicy, existing: VolumeMigration | undefined): ResolvedPolicy {
  if (resolved.kind !== "policy") return resolved;
  const origins = { ...resolved.policy.origins };
  for (const name of settingNames) {
    const before = existing?.spec.policy.origins?.[name];
    if (before !== undefined && origins[name]?.includes("parameter of StorageClass")) origins[name] = before;
  }
  return { ...resolved, policy: { ...resolved.policy, origins } };
}
