// What snapshot-controller and csi-snapshotter do with pre-provisioned VolumeSnapshots, as far as it is felt by whoever publishes
// them: they bind, they hold both objects by finalizers, and they let go of them in their own order.
import type { VolumeSnapshot, VolumeSnapshotContent } from "../../src/api/core.ts";
import { VolumeSnapshotContents, VolumeSnapshots } from "../../src/controllers/kinds.ts";
import { keyOf } from "../../src/kube/cluster.ts";
import type { FakeKubernetes } from "./fake-kubernetes.ts";

export const asSource = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
export const boundProtection = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
export const beingDeleted = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

/** One look at everything there is. `inUse`: names of VolumeSnapshots that a claim is being restored from. */
export function runSnapshotControllers(server: FakeKubernetes, inUse: readonly string[] = []): void {
  for (const snapshot of server.list(VolumeSnapshots)) {
    if (snapshot.metadata.deletionTimestamp === undefined) bind(server, snapshot);
    else release(server, snapshot, inUse.includes(snapshot.metadata.name));
  }
  for (const content of server.list(VolumeSnapshotContents)) letGo(server, content);
}

/** Only the VolumeSnapshot that the content itself names is ever bound to it. */
function bind(server: FakeKubernetes, snapshot: VolumeSnapshot): void {
  const { uid, name, namespace, finalizers = [] } = snapshot.metadata;
  if (!finalizers.includes(asSource)) {
    const metadata = { finalizers: [...finalizers, asSource] };
    server.edit(VolumeSnapshots, keyOf(snapshot), { metadata });
  }
  const content = contentOf(server, snapshot);
  const { volumeSnapshotRef: ref } = content?.spec ?? {};
  if (content === undefined || ref?.name !== name || ref.namespace !== namespace || ref.uid !== undefined) return;
  server.edit(VolumeSnapshotContents, keyOf(content), {
    metadata: { finalizers: [boundProtection] },
    spec: { volumeSnapshotRef: { uid } },
  });
}

function release(server: FakeKubernetes, snapshot: VolumeSnapshot, isInUse: boolean): void {
  const { uid, finalizers = [] } = snapshot.metadata;
  const content = contentOf(server, snapshot);
  const isBound = content?.spec.volumeSnapshotRef.uid === uid;
  if (content !== undefined && isBound && isInUse) return;
  if (content !== undefined && isBound) {
    server.edit(VolumeSnapshotContents, keyOf(content), { metadata: { annotations: { [beingDeleted]: "yes" } } });
  }
  const left = finalizers.filter((name) => name !== asSource);
  if (left.length < finalizers.length) {
    server.edit(VolumeSnapshots, keyOf(snapshot), { metadata: { finalizers: left } });
  }
}

function letGo(server: FakeKubernetes, { metadata, spec }: VolumeSnapshotContent): void {
  const isAllowed = spec.volumeSnapshotRef.uid === undefined || metadata.annotations?.[beingDeleted] !== undefined;
  if (metadata.deletionTimestamp === undefined || !isAllowed) return;
  server.edit(VolumeSnapshotContents, { name: metadata.name }, { metadata: { finalizers: null } });
}

function contentOf(server: FakeKubernetes, { spec }: VolumeSnapshot): VolumeSnapshotContent | undefined {
  const { volumeSnapshotContentName: name } = spec.source;
  return name === undefined ? undefined : server.get(VolumeSnapshotContents, { name });
}
