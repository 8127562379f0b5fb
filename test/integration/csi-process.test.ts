// `longshore csi controller` and `longshore csi node` as processes in front of a real agent: they start, serve, tell of themselves, and
// leave nothing behind. What the node's does to its node is in csi-node.test.ts and csi-sanity.test.ts.
import { existsSync, readFileSync } from "node:fs";
import { unlink } from "node:fs/promises";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import type { CreateVolumeResponse, ListVolumesResponse } from "../../src/csi/csi-messages.ts";
import { type CsiProcess, startCsiController, startCsiNode } from "../e2e/csi-processes.ts";
import { freePort } from "../e2e/free-port.ts";
import { eventually, startLongshore } from "../e2e/process.ts";
import { type StorageCluster, startStorageCluster } from "../e2e/storage-cluster.ts";
import { type CsiClient, controller, identity, node, openCsiClient, registration } from "../fakes/csi-client.ts";
import { block, createVolumeRequest, range } from "../fakes/csi-requests.ts";
import { type TemporaryFolder, temporaryFolder } from "../fakes/temporary-folder.ts";

let folder: TemporaryFolder;
let storage: StorageCluster;
let started: CsiProcess;
let client: CsiClient;
let probes: string;

beforeAll(async () => {
  folder = await temporaryFolder("csi");
  storage = await startStorageCluster({ name: "east", folder: folder.path, backend: "copy" });
  const listen = `127.0.0.1:${await freePort()}`;
  probes = `http://${listen}`;
  started = await startCsiController({ storage, folder: folder.path, more: ["--listen", listen] });
  client = openCsiClient(started.endpoint, controller);
}, 60_000);

afterAll(async () => {
  client.close();
  await started.process.signal("SIGTERM");
  await storage.stop();
  await folder.remove();
}, 60_000);

function createVolume(name: string): Promise<CreateVolumeResponse> {
  const request = createVolumeRequest({ name, volumeCapabilities: [block], capacityRange: range(2 ** 20) });
  return client.call("CreateVolume", request, { deadlineMs: 60_000 });
}

test("a hundred volumes that are asked for at once are all made by one agent", async () => {
  const names = Array.from({ length: 100 }, (_, index) => `pvc-${index}`);
  const made = await Promise.all(names.map(createVolume));
  expect(made.map(({ volume }) => volume.volumeId)).toEqual(names);
  const { entries } = await client.call<ListVolumesResponse>("ListVolumes");
  expect(entries).toHaveLength(100);
  await Promise.all(names.map((volumeId) => client.call("DeleteVolume", { volumeId }, { deadlineMs: 60_000 })));
  expect((await storage.api.listVolumes()).items).toEqual([]);
}, 120_000);

test("health, readiness and metrics are served", async () => {
  await createVolume("pvc-1");
  for (const path of ["/healthz", "/readyz"]) expect((await fetch(probes + path)).status).toBe(200);
  const metrics = await (await fetch(`${probes}/metrics`)).text();
  expect(metrics).toMatch(/longshore_csi_calls_total\{method="CreateVolume",code="OK"\} \d+/);
});

test("calls wait for the agent while it is away, and go on when it is back", async () => {
  await storage.agent().signal("SIGTERM");
  await expect(createVolume("pvc-2")).rejects.toMatchObject({ code: status.UNAVAILABLE });
  const who = openCsiClient(started.endpoint, identity);
  try {
    // Sidecars that begin now wait for this, and are restarted when it does not come.
    expect(await who.call("Probe")).toEqual({ ready: { value: true } });
  } finally {
    who.close();
  }
  await storage.start();
  const made = await eventually("a volume being made again", () => createVolume("pvc-2"));
  expect(made.volume.volumeId).toBe("pvc-2");
}, 60_000);

test("a node's process tells when its agent is that of another node", async () => {
  const own = await temporaryFolder("csi");
  const served = await startCsiNode({ storage, folder: own.path, node: "elsewhere-1" });
  const isTold = async () => readFileSync(join(own.path, "csi-node.log"), "utf8").includes("another node") || undefined;
  await eventually("the wrong agent being told of", isTold);
  await served.process.signal("SIGTERM");
  await own.remove();
}, 60_000);

test("a second process does not take the socket of the first", async () => {
  const log = join(folder.path, "second.log");
  const words = ["csi", "controller", "--endpoint", started.endpoint, "--agents", storage.address];
  const tls = { cert: "csi.crt", key: "csi.key", ca: "ca.crt" };
  const files = Object.entries(tls).flatMap(([name, file]) => [`--${name}`, join(storage.pki, file)]);
  const second = startLongshore([...words, ...files], log);
  await eventually("the second process ending", async () => {
    const text = readFileSync(log, "utf8");
    return text.includes("another process serves") || undefined;
  });
  await second.signal("SIGTERM");
  expect((await client.call<ListVolumesResponse>("ListVolumes")).entries.length).toBeGreaterThan(0);
}, 60_000);

test("a process that was killed leaves a socket that the next one takes; one that is stopped leaves none", async () => {
  const own = await temporaryFolder("csi");
  const killed = await startCsiController({ storage, folder: own.path });
  const path = killed.endpoint.replace("unix://", "");
  await killed.process.signal("SIGKILL");
  expect(existsSync(path)).toBe(true);
  const next = await startCsiController({ storage, folder: own.path });
  await next.process.signal("SIGTERM");
  expect(existsSync(path)).toBe(false);
  await own.remove();
}, 60_000);

test.each(["its socket", "the kubelet's"])(
  "a node's process is not healthy any more when %s was removed",
  async (which) => {
    const own = await temporaryFolder("csi");
    const listen = `127.0.0.1:${await freePort()}`;
    const socket = join(own.path, "reg.sock");
    const more = ["--listen", listen, "--registration", `unix://${socket}`];
    const served = await startCsiNode({ storage, folder: own.path, node: "east-1", more });
    const health = async () => (await fetch(`http://${listen}/healthz`)).status;
    const ready = async () => (await fetch(`http://${listen}/readyz`)).status === 200 || undefined;
    await eventually("the process being registered", ready);
    expect(await health()).toBe(200);
    await unlink(which === "its socket" ? served.endpoint.replace("unix://", "") : socket);
    expect([await health(), await ready()]).toEqual([503, undefined]);
    await served.process.signal("SIGTERM");
    await own.remove();
  },
  60_000,
);

test("a node's process tells the kubelet who it is, where it is, and what can be used there", async () => {
  const own = await temporaryFolder("csi");
  const socket = join(own.path, "reg.sock");
  const seen = "/var/lib/kubelet/plugins/csi.longshore.dev/csi.sock";
  const more = ["--registration", `unix://${socket}`, "--registration-endpoint", seen];
  const served = await startCsiNode({ storage, folder: own.path, node: "east-1", more });
  const kubelet = openCsiClient(`unix://${socket}`, registration);
  const calls = openCsiClient(served.endpoint, node);
  try {
    // It is ready, and so may be called, a moment before it lets itself be registered.
    const info = await eventually("the kubelet finding it", () => kubelet.call("GetInfo"));
    const plugin = { type: "CSIPlugin", name: "csi.longshore.dev", endpoint: seen, supportedVersions: ["1.0.0"] };
    expect(info).toEqual(plugin);
    expect(await kubelet.call("NotifyRegistrationStatus", { pluginRegistered: true })).toEqual({});
    expect(await calls.call("NodeGetInfo")).toEqual({
      nodeId: "east-1",
      maxVolumesPerNode: 0,
      accessibleTopology: { segments: { "longshore.dev/node": "east-1" } },
    });
    const asked = { volumeId: "pvc-9", volumePath: join(served.kubeletDir, "nowhere") };
    await expect(calls.call("NodeGetVolumeStats", asked)).rejects.toMatchObject({ code: status.NOT_FOUND });
  } finally {
    kubelet.close();
    calls.close();
    await served.process.signal("SIGTERM");
  }
  expect([socket, served.endpoint.replace("unix://", "")].filter((path) => existsSync(path))).toEqual([]);
  await own.remove();
}, 60_000);
