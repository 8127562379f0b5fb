// csi-sanity against the real driver: an agent on a reflinking XFS, the controller's and the node's process, real mounts. Every case
// counts, and what is skipped is skipped for a capability that the driver does not claim to have.
import { readdirSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { controllerCapabilities } from "../../src/csi/controller.ts";
import { pluginCapabilities } from "../../src/csi/identity.ts";
import { type CsiProcess, startCsiController, startCsiNode } from "../e2e/csi-processes.ts";
import { type StorageCluster, startStorageCluster } from "../e2e/storage-cluster.ts";
import { type LoopFs, mountLoop } from "../fakes/loop-fs.ts";
import { type TemporaryFolder, temporaryFolder } from "../fakes/temporary-folder.ts";
import { missing, needs } from "../needs.ts";
import { casesIn, runCsiSanity, type SanityCase } from "./csi-sanity.ts";

/** Why a case may be skipped: it is about a capability that is not there. */
interface Skip {
  readonly says: RegExp;
  readonly capability: string;
  readonly reason: string;
}

const skips: readonly Skip[] = [
  {
    says: /Controller ?(?:Publish|Unpublish)/,
    capability: "PUBLISH_UNPUBLISH_VOLUME",
    reason: "nothing has to be attached: a volume is on the node that it is used on (attachRequired: false)",
  },
  {
    says: /modify ?volume/i,
    capability: "MODIFY_VOLUME",
    reason: "a volume has no parameters that could be changed",
  },
  {
    says: /get ?snapshot/i,
    capability: "GET_SNAPSHOT",
    reason: "a single snapshot is found by ListSnapshots",
  },
  {
    says: /SNAPSHOT_ACCESSIBILITY_CONSTRAINTS/,
    capability: "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS",
    reason: "a snapshot is where its volume is, and cannot be asked for elsewhere",
  },
  {
    says: /(?:volume|storage) ?health/i,
    capability: "GET_VOLUME_HEALTH",
    reason: "it is of a later revision of the interface than the driver speaks",
  },
];

/** Switched off in csi-sanity itself, whose source calls it fragile. What it looks at is in src/csi/listing.test.ts. */
const switchedOff = /pagination should detect volumes added between pages/;

const machine = ["root", "xfs", "csi-sanity"] as const;
const isPossible = machine.every((need) => missing(need) === undefined);
const ampleMs = 600_000;

let disk: LoopFs;
let folder: TemporaryFolder;
let storage: StorageCluster;
let controller: CsiProcess;
let node: CsiProcess;

beforeAll(async () => {
  if (!isPossible) return;
  disk = await mountLoop({ fs: "xfs", sizeBytes: 2 ** 30 });
  folder = await temporaryFolder("sanity");
  const dataDir = join(disk.path, "data");
  await mkdir(dataDir);
  storage = await startStorageCluster({ name: "sanity", folder: folder.path, dataDir, backend: "reflink" });
  controller = await startCsiController({ storage, folder: folder.path });
  node = await startCsiNode({ storage, folder: folder.path, node: "sanity-1" });
}, ampleMs);

afterAll(async () => {
  if (!isPossible) return;
  await node.process.signal("SIGTERM");
  await controller.process.signal("SIGTERM");
  await storage.stop();
  await folder.remove();
  await disk.unmount();
}, ampleMs);

/** The loop devices over images of our agent, and what is mounted below our kubelet's folder. */
function leftOnNode(): string[] {
  const devices = readdirSync("/sys/block").filter((name) => name.startsWith("loop"));
  const backing = devices.map((name) => readText(`/sys/block/${name}/loop/backing_file`));
  const mounts = readText("/proc/self/mounts").split("\n");
  return [
    ...backing.filter((file) => file.includes(disk.path)),
    ...mounts.filter((mount) => mount.includes(node.kubeletDir)),
  ];
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // A loop device over nothing has no such file.
  }
}

const failedOf = (cases: readonly SanityCase[]) =>
  cases.filter(({ status }) => status === "failed").map(({ name, says }) => `${name}: ${says}`);

function unexplained(cases: readonly SanityCase[]): string[] {
  return cases
    .filter(({ status, name }) => status === "skipped" || (status === "pending" && !switchedOff.test(name)))
    .filter(({ says }) => !skips.some((skip) => skip.says.test(says)))
    .map(({ name, says }) => `${name}: ${says}`);
}

describe.each(["mount", "block"] as const)("csi-sanity with volumes of type %s", (accessType) => {
  needs(...machine)(
    "passes every case, skips none without its reason, and leaves nothing on the node",
    async () => {
      const options = { node: node.endpoint, controller: controller.endpoint, kubeletDir: node.kubeletDir };
      const cases = await runCsiSanity({ ...options, accessType, folder: folder.path });
      expect(failedOf(cases)).toEqual([]);
      expect(unexplained(cases)).toEqual([]);
      expect(cases.filter(({ status }) => status === "passed").length).toBeGreaterThan(50);
      expect((await storage.api.listVolumes()).items).toEqual([]);
      expect(leftOnNode()).toEqual([]);
    },
    ampleMs,
  );
});

/** Of the driver as a whole, and of its controller: what a case asks for is among the ones or the others. */
const claimed: readonly string[] = [
  ...controllerCapabilities,
  ...pluginCapabilities.flatMap((one) => ("service" in one ? [one.service.type] : [])),
];

test.each(skips)("$capability is not advertised: $reason", ({ capability }) => {
  expect(claimed).not.toContain(capability);
});

test("what is advertised is read, of the controller and of the driver", () => {
  expect(claimed).toEqual(expect.arrayContaining(["CREATE_DELETE_VOLUME", "VOLUME_ACCESSIBILITY_CONSTRAINTS"]));
});

test("the documentation names what is not advertised", () => {
  const documented = readFileSync(join(import.meta.dirname, "../../docs/csi.md"), "utf8");
  const [, table = ""] = documented.split("| not claimed | because |");
  const undocumented = skips.map(({ capability }) => capability).filter((name) => !table.includes(`\`${name}\``));
  expect(undocumented).toEqual([]);
});

test("a report is read whole, and one that lacks a case is refused", () => {
  const testcase = (name: string, status: string, body = "") =>
    `<testcase name="${name}" classname="x" status="${status}" time="1">${body}</testcase>`;
  const cases = [
    testcase("[It] a &#34;b&#34;", "passed"),
    testcase("c", "skipped", '<skipped message="skipped - c &amp; d"></skipped>'),
    testcase("e", "timedout", '<failure message="late" type="t">late</failure>'),
  ];
  const report = (tests: number) =>
    `<testsuites tests="9"><testsuite name="x" tests="${tests}">${cases.join("")}</testsuite></testsuites>`;
  expect(casesIn(report(3))).toEqual([
    { name: '[It] a "b"', status: "passed", says: "" },
    { name: "c", status: "skipped", says: "skipped - c & d" },
    { name: "e", status: "failed", says: "late" },
  ]);
  expect(() => casesIn(report(4))).toThrow("has 3 cases, and says 4");
});
