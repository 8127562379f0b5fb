// Tenants with the role `edit` in one namespace each: what they delete, forge and wish for costs no point in time, shows them nothing
// of others, and does not stay so.
import { expect } from "@jest/globals";
import type { Manifest, Seen } from "../kube-client.ts";
import { dockHasArrived, hull, keel } from "./dock.ts";
import { apply, get, list, remove, told } from "./kube.ts";
import { copyOf, publishedAs, volumeOf } from "./migration.ts";
import { claim } from "./objects.ts";
import type { TestCluster } from "./test-cluster.ts";
import { boundTimes, until, untilOne } from "./watching.ts";
import type { World } from "./world.ts";

/** The account of a tenant, with all that the role lets anybody do in the namespace, VolumeSnapshots included. */
function tenancy(namespace: string): Manifest[] {
  const rbac = "rbac.authorization.k8s.io";
  const snapshots = { apiGroups: ["snapshot.storage.k8s.io"], resources: ["volumesnapshots"], verbs: ["*"] };
  return [
    {
      apiVersion: `${rbac}/v1`,
      kind: "ClusterRole",
      metadata: { name: "edit-snapshots", labels: { [`${rbac}/aggregate-to-edit`]: "true" } },
      rules: [snapshots],
    },
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "tenant", namespace } },
    {
      apiVersion: `${rbac}/v1`,
      kind: "RoleBinding",
      metadata: { name: "tenant", namespace },
      roleRef: { apiGroup: rbac, kind: "ClusterRole", name: "edit" },
      subjects: [{ kind: "ServiceAccount", name: "tenant", namespace }],
    },
  ];
}

const byTenant = (namespace: string) => ["--as", `system:serviceaccount:${namespace}:tenant`, "--namespace", namespace];

/** Resolves once the tenant may do there what the role grants. */
async function makeTenant(cluster: TestCluster, namespace: string): Promise<void> {
  await apply(cluster, ...tenancy(namespace));
  await untilOne(cluster, { kind: "clusterroles", name: "edit" }, "having what is added to it", (role) =>
    JSON.stringify(role).includes("snapshot.storage.k8s.io"),
  );
}

const pointsIn = ({ status }: Seen) => (status.points as { pointId: string }[]).map(({ pointId }) => pointId);

export async function whatATenantDeletesIsPublishedAnew(world: World): Promise<void> {
  const { target } = world;
  await dockHasArrived(world);
  await makeTenant(target, keel.namespace);
  const points = pointsIn(await copyOf(target, keel, "being there"));
  const before = await publishedAs(target, keel);
  await target.kubectl(["delete", "volumesnapshot", keel.name, "--wait=false", ...byTenant(keel.namespace)]);
  await until(target, { kind: "volumesnapshots", ...keel }, "being published anew", ({ metadata, status }) => {
    return metadata.uid !== before.metadata.uid && status?.readyToUse === true;
  });
  expect(pointsIn(await copyOf(target, keel, "being there"))).toEqual(points);
  const whenBound = boundTimes(target, keel.namespace, ["after"]);
  void whenBound.catch(() => undefined);
  await apply(target, claim({ ...keel, name: "after", storageClass: "clones", size: "64Mi", from: keel.name }));
  await whenBound;
  await remove(target, "pvc", keel.namespace, ["after"]);
}

/** A VolumeSnapshot in one namespace that says it is of the content that belongs to another's. */
export async function whatIsForgedShowsNothing(world: World): Promise<void> {
  const { target } = world;
  const rival = "rival";
  await dockHasArrived(world);
  await makeTenant(target, rival);
  const published = await publishedAs(target, keel);
  const points = pointsIn(await copyOf(target, keel, "being there"));
  const forged: Manifest = {
    apiVersion: "snapshot.storage.k8s.io/v1",
    kind: "VolumeSnapshot",
    metadata: { name: "forged", namespace: rival },
    spec: { source: { volumeSnapshotContentName: published.status.boundVolumeSnapshotContentName } },
  };
  const stolen = claim({ namespace: rival, name: "stolen", storageClass: "clones", size: "64Mi", from: "forged" });
  for (const object of [forged, stolen]) {
    await target.kubectl(["create", "-f", "-", ...byTenant(rival)], { input: JSON.stringify(object) });
  }
  const about = { kind: "PersistentVolumeClaim", namespace: rival, name: "stolen" };
  await told(target, about, ({ reason }) => reason === "ProvisioningFailed");
  const isRefused = ({ reason }: { reason: string }) => /Misbound|Mismatch|Invalid|Failed|Error/i.test(reason);
  await told(target, { kind: "VolumeSnapshot", namespace: rival, name: "forged" }, isRefused);
  expect((await get(target, { kind: "pvc", namespace: rival, name: "stolen" })).status.phase).toBe("Pending");
  const seen = await get(target, { kind: "volumesnapshot", namespace: rival, name: "forged" });
  expect(seen.status?.readyToUse).not.toBe(true);

  await target.kubectl(["delete", "pvc/stolen", "volumesnapshot/forged", "--timeout=120s", ...byTenant(rival)]);
  // What it was said to be of is where it was, and nothing happened to it.
  const now = await publishedAs(target, keel);
  expect(now.metadata.uid).toBe(published.metadata.uid);
  expect(pointsIn(await copyOf(target, keel, "being there"))).toEqual(points);
  expect(await list(target, "pvc", rival)).toEqual([]);
}

/** The class does not let claims opt out. */
export async function whoMayNotOptOutStaysIn(world: World): Promise<void> {
  const { source } = world;
  await dockHasArrived(world);
  await makeTenant(source, hull.namespace);
  const wish = "longshore.dev/migrationEnable=false";
  await source.kubectl(["annotate", "pvc", hull.name, wish, ...byTenant(hull.namespace)]);
  const about = { kind: "PersistentVolumeClaim", ...hull };
  const event = await told(source, about, ({ reason }) => reason === "MigrationPolicyRefused");
  expect(event.message).toMatch(/allowOptOut/);
  const migration = await get(source, { kind: "volumemigration", name: await volumeOf(source, hull) });
  expect(migration.spec.policy.enabled).toBe(true);
  await source.kubectl(["annotate", "pvc", hull.name, "longshore.dev/migrationEnable-", ...byTenant(hull.namespace)]);
}
