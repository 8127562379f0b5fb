// Pods for tests of a cluster: one container each, its output as the result.
import type { ControlPlane } from "../control-plane.ts";

export interface PodWish {
  readonly name: string;
  /** Run by `sh -c`. */
  readonly script: string;
  readonly image?: string;
  /** More of the pod's and of the container's spec. */
  readonly pod?: object;
  readonly container?: object;
}

type Cluster = Pick<ControlPlane, "kubectl">;

/** Of the tests' own making (tools/image.ts): busybox with a C library, so that names are looked up as everywhere else. */
export const busybox = "busybox:test";

export function podOf({ name, script, image = busybox, pod, container }: PodWish): object {
  const main = { name: "main", image, command: ["sh", "-c", script], ...container };
  const spec = { restartPolicy: "Never", terminationGracePeriodSeconds: 1, containers: [main], ...pod };
  return { apiVersion: "v1", kind: "Pod", metadata: { name }, spec };
}

/** Makes the pod, waits until it has ended well, and returns what it wrote. */
export async function runPod(cluster: Cluster, wish: PodWish): Promise<string> {
  await cluster.kubectl(["create", "-f", "-"], { input: JSON.stringify(podOf(wish)) });
  const target = `pod/${wish.name}`;
  try {
    await cluster.kubectl(["wait", "--for=jsonpath={.status.phase}=Succeeded", target, "--timeout=300s"]);
  } catch (cause) {
    throw new Error(`${String(cause)}\n${await fateOf(cluster, target)}`, { cause });
  }
  return (await cluster.kubectl(["logs", target])).stdout;
}

/** Makes the pod and waits until it is ready. */
export async function startPod(cluster: Cluster, wish: PodWish): Promise<void> {
  await cluster.kubectl(["create", "-f", "-"], { input: JSON.stringify(podOf(wish)) });
  const target = `pod/${wish.name}`;
  try {
    await cluster.kubectl(["wait", "--for=condition=Ready", target, "--timeout=300s"]);
  } catch (cause) {
    throw new Error(`${String(cause)}\n${await fateOf(cluster, target)}`, { cause });
  }
}

async function fateOf(cluster: Cluster, target: string): Promise<string> {
  const { stdout: described } = await cluster.kubectl(["describe", target]);
  const logs = await cluster.kubectl(["logs", target, "--tail=20"]).then(
    ({ stdout }) => stdout,
    (error: Error) => error.message,
  );
  return `${described}\n${logs}`;
}
