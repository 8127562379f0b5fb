// A pod writes on while everything that is ours ends around it: what it has mounted does not depend on our processes. In the end
// nothing is lost, and nothing left over.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "@jest/globals";
import { eventually } from "../process.ts";
import { runs } from "./install.ts";
import { apply, get, inPod, podIsReady, remove } from "./kube.ts";
import { volumeOf } from "./migration.ts";
import { claim, fileSystem, pod, storageClass } from "./objects.ts";
import type { TestCluster } from "./test-cluster.ts";
import type { World } from "./world.ts";

const namespace = "steady";
const writer = { kind: "pod", namespace, name: "writer" } as const;
const log = { namespace, name: "log" } as const;
const className = "steady";

/** Ends with an error when a number cannot be brought to disk. */
const counting = `n=0
while n=$((n + 1)); do
  echo "$n" >>/log/numbers && sync /log/numbers || exit 1
  sleep 0.1
done`;

export async function aPodWritesOnWhateverEnds({ source }: World): Promise<void> {
  const tracesBefore = traces(source);
  await apply(source, storageClass(className, fileSystem("ext4"), "WaitForFirstConsumer"));
  await apply(
    source,
    claim({ ...log, storageClass: className, size: "64Mi" }),
    pod({ ...writer, script: counting, mounts: [log.name] }),
  );
  await podIsReady(source, namespace, writer.name);
  const volume = await volumeOf(source, log);
  await writesOn(source);
  for (const happens of [programsDie, podsAreDeleted, kubeletsRestart, daemonSetIsRolled]) {
    await happens(source);
    await writesOn(source);
  }
  const { status } = await get(source, writer);
  expect(status.phase).toBe("Running");
  expect(status.containerStatuses[0].restartCount).toBe(0);

  await remove(source, "pod", namespace, [writer.name]);
  await nextOneFindsEverything(source);
  await remove(source, "pvc", namespace, [log.name]);
  await source.kubectl(["delete", "storageclass", className]);
  await nothingIsLeft(source, volume, tracesBefore);
}

/** A few more numbers reach the disk. A kubelet that has just begun knows no pods yet, and says that there are none. */
async function writesOn(source: TestCluster): Promise<void> {
  const last = async () => Number(await inPod(source, writer, "tail -n 1 /log/numbers"));
  const before = await eventually("the pod answering", last, { timeoutMs: 200_000, intervalMs: 500 });
  const goesOn = async () => (await last()) >= before + 5 || undefined;
  await eventually("the pod writing on", goesOn, { timeoutMs: 200_000, intervalMs: 500 });
}

const programs = [/longshore\S* agent /, /longshore\S* csi node /, /longshore\S* csi controller /];

/** Our programs are killed where they run, and come up again. Only nodes of the tests' own let us do that. */
async function programsDie(source: TestCluster): Promise<void> {
  for (const node of source.own?.nodes ?? []) {
    for (const program of programs) {
      const before = node.pids(program);
      expect(node.kill(program)).toBeGreaterThan(0);
      const isBack = async () => node.pids(program).some((pid) => !before.includes(pid)) || undefined;
      await eventually(`${program} running again`, isBack, { timeoutMs: 200_000, intervalMs: 500 });
    }
  }
  await allRuns(source);
}

async function podsAreDeleted(source: TestCluster): Promise<void> {
  const ours = ["--selector=app.kubernetes.io/part-of=longshore", "--grace-period=1", "--timeout=120s"];
  await source.kubectl(["delete", "pods", "--namespace", "longshore-node", ...ours]);
  await source.kubectl(["delete", "pods", "--namespace", "longshore-system", ...ours]);
  await allRuns(source);
}

async function kubeletsRestart(source: TestCluster): Promise<void> {
  for (const node of source.own?.nodes ?? []) await node.restartKubelet();
  await allRuns(source);
}

async function daemonSetIsRolled(source: TestCluster): Promise<void> {
  await source.kubectl(["rollout", "restart", "daemonset/longshore-node", "--namespace", "longshore-node"]);
  await allRuns(source);
}

async function allRuns(source: TestCluster): Promise<void> {
  await runs(source, "longshore-node", "daemonset/longshore-node");
  await runs(source, "longshore-system", "deployment/longshore-operator");
  await runs(source, "longshore-system", "deployment/longshore-csi");
}

/** Another pod mounts the volume, and no number is missing. */
async function nextOneFindsEverything(source: TestCluster): Promise<void> {
  const reader = { kind: "pod", namespace, name: "reader" } as const;
  await apply(source, pod({ ...reader, script: "sleep 86400", mounts: [log.name] }));
  await podIsReady(source, namespace, reader.name);
  const gaps = await inPod(source, reader, `awk '$1 != NR { print NR }' /log/numbers`);
  expect(gaps).toBe("");
  await remove(source, "pod", namespace, [reader.name]);
}

/**
 * What there is of volumes on the nodes: files that are attached, by their numbers; where they are mounted for the kubelet, which is at a
 * hash of their names, and for pods; the driver's notes.
 */
function traces({ own }: TestCluster): string[] {
  return (own?.nodes ?? []).flatMap((node) => {
    const devices = node.loopDevices().map(({ backingInode }) => `file ${backingInode}`);
    const staged = node.mountPoints("/var/lib/kubelet/plugins/kubernetes.io/csi");
    const published = node.mountPoints("/var/lib/kubelet/pods").filter((point) => /\/kubernetes\.io~csi\//.test(point));
    const notes = readdirSync(join(node.libFolder, "longshore-csi/volumes"));
    return [...devices, ...staged, ...published, ...notes].map((trace) => `${node.name} ${trace}`);
  });
}

async function nothingIsLeft(source: TestCluster, volume: string, tracesBefore: readonly string[]): Promise<void> {
  await source.kubectl(["wait", "--for=delete", `pv/${volume}`, "--timeout=120s"]);
  const isClean = async () => {
    const left = traces(source).filter((trace) => !tracesBefore.includes(trace));
    if (left.length > 0) throw new Error(`left: ${left.join(", ")}`);
    return true;
  };
  await eventually("nothing of the volume being left on its node", isClean);
}
