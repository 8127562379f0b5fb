// The set-up scripts, in a tree of their own with a Go and an npm that do nothing but take notes: what is made, in which
// order, once, and what is left when it is interrupted.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { processesNaming } from "../../test/processes.ts";

const kubernetes = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "kube-scheduler", "kubelet"];
const csi = ["csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller"];
/** Of modules of their own. */
const apart = ["csi-snapshot-metadata", "csi-sanity"];
const programs = [...kubernetes, ...csi, ...apart];
const csiBuilds = [
  "build github.com/kubernetes-csi/external-provisioner/v5/cmd/csi-provisioner",
  "build github.com/kubernetes-csi/external-resizer/cmd/csi-resizer",
  "build github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
  "build github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
  "build github.com/kubernetes-csi/external-snapshot-metadata/cmd/csi-snapshot-metadata",
  "build github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
];
let tree: string;

beforeEach(() => {
  tree = mkdtempSync(join(tmpdir(), "longshore-setup-"));
  cpSync(import.meta.dirname, join(tree, "tools/setup"), { recursive: true });
  cpSync(join(import.meta.dirname, "../controlplane"), join(tree, "tools/controlplane"), { recursive: true });
  writeFileSync(join(tree, "package-lock.json"), "{}");
  mkdirSync(join(tree, "crds/config/crd"), { recursive: true });
  writeFileSync(join(tree, "crds/config/crd/snapshot.storage.k8s.io_volumesnapshots.yaml"), "kind: X");
  program(
    "bin/go",
    `case $1 in
      env) echo go1.26.0 ;;
      mod) ;;
      list) echo ${tree}/crds ;;
      build)
        echo "build \${@: -1}" >> ${tree}/notes
        while [ -e ${tree}/hang ]; do sleep 0.05; done
        [ ! -e ${tree}/fail ] || { echo "the compiler says no"; exit 1; }
        for last; do [ "$previous" != -o ] || out=$last; previous=$last; done
        printf '#!/bin/sh\\necho Kubernetes v1.34.4\\n' > "$out"; chmod 755 "$out" ;;
    esac`,
  );
  program(
    "bin/npm",
    `echo "npm $*" >> ${tree}/notes; mkdir -p node_modules/.bin; ln -sfn ${process.execPath} node_modules/.bin/node`,
  );
});

afterEach(() => rmSync(tree, { recursive: true, force: true }));

function program(path: string, script: string): void {
  mkdirSync(join(tree, path, ".."), { recursive: true });
  writeFileSync(join(tree, path), `#!/bin/bash\n${script}\n`);
  chmodSync(join(tree, path), 0o755);
}

const environment = (more: Record<string, string> = {}) => ({
  PATH: `${tree}/bin:${process.env.PATH}`,
  HOME: tree,
  LONGSHORE_CACHE: join(tree, "cache"),
  LONGSHORE_DOWNLOAD: "no",
  ...more,
});

function setUp(step: string, env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(join(tree, "tools/setup/setup.sh"), [step], {
    env: environment(env),
    encoding: "utf8",
  });
  return { status, output: stdout + stderr };
}

const notes = () =>
  existsSync(join(tree, "notes")) ? readFileSync(join(tree, "notes"), "utf8").trim().split("\n") : [];
const link = (name: string) => join(tree, ".cache/controlplane", name);
const store = () => dirname(realpathSync(link("etcd")));

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(20);
}

describe("the programs of the control plane", () => {
  test("are built once, one after the other, and found again", () => {
    expect(setUp("controlplane").status).toBe(0);
    expect(notes()).toEqual([
      "build go.etcd.io/etcd/server/v3",
      "build k8s.io/kubernetes/cmd/kube-apiserver",
      "build k8s.io/kubernetes/cmd/kube-controller-manager",
      "build k8s.io/kubernetes/cmd/kubectl",
      "build k8s.io/kubernetes/cmd/kube-scheduler",
      "build k8s.io/kubernetes/cmd/kubelet",
      ...csiBuilds,
    ]);
    rmSync(join(tree, ".cache"), { recursive: true });
    expect(setUp("controlplane")).toEqual({ status: 0, output: "" });
    expect(notes()).toHaveLength(programs.length);
    for (const name of programs) expect(existsSync(link(name))).toBe(true);
    expect(readdirSync(link("crds"))).toEqual(["snapshot.storage.k8s.io_volumesnapshots.yaml"]);
  });

  test("come from KUBEBUILDER_ASSETS, and only what it lacks is built", () => {
    for (const name of ["etcd", "kube-apiserver", "kubectl"]) program(`assets/${name}`, "echo v1.34.1");
    expect(setUp("controlplane", { KUBEBUILDER_ASSETS: join(tree, "assets") }).status).toBe(0);
    expect(notes()).toEqual([
      "build k8s.io/kubernetes/cmd/kube-controller-manager",
      "build k8s.io/kubernetes/cmd/kube-scheduler",
      "build k8s.io/kubernetes/cmd/kubelet",
      ...csiBuilds,
    ]);
    expect(readlinkSync(link("etcd"))).toBe(join(tree, "assets/etcd"));
  });

  test("of another version of Kubernetes are not used", () => {
    for (const name of programs) program(`assets/${name}`, "echo v1.29.0");
    const { output } = setUp("controlplane", { KUBEBUILDER_ASSETS: join(tree, "assets") });
    expect(output).toContain("kube-apiserver: the one in KUBEBUILDER_ASSETS is not of Kubernetes 1.34");
    expect(notes()).toContain("build k8s.io/kubernetes/cmd/kube-apiserver");
  });

  test("that cannot be built are told with the compiler's words and the next step", () => {
    writeFileSync(join(tree, "fail"), "");
    const { status, output } = setUp("controlplane");
    expect(status).toBe(1);
    expect(output).toMatch(/the compiler says no[\s\S]*building etcd failed\n +next: read/);
  });

  test("are named with what to install where there is no Go", () => {
    rmSync(join(tree, "bin/go"));
    const { status, output } = setUp("controlplane", { PATH: "/usr/bin:/bin:/usr/sbin" });
    expect(status).toBe(1);
    expect(output).toContain("install Go 1.26");
  });

  test("leave nothing half made when the build is interrupted, and are built by the next run", async () => {
    writeFileSync(join(tree, "hang"), "");
    const child = spawn(join(tree, "tools/setup/setup.sh"), ["controlplane"], { env: environment(), stdio: "ignore" });
    await until(() => notes().length === 1);
    expect(processesNaming(tree)).not.toEqual([]);
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([143, null]);
    // The signal was passed on; its receivers may take a moment longer than the one who passed it.
    await until(() => processesNaming(tree).length === 0);
    expect(existsSync(link("etcd"))).toBe(false);
    rmSync(join(tree, "hang"));
    expect(setUp("controlplane").status).toBe(0);
    expect(notes()).toHaveLength(programs.length + 1);
  });

  test("are built only once by two set-ups at once", async () => {
    writeFileSync(join(tree, "hang"), "");
    const start = () => spawn(join(tree, "tools/setup/setup.sh"), ["controlplane"], { env: environment() });
    const [first, second] = [start(), start()];
    await Promise.race([first, second].map((child) => untilWaits(child.stdout)));
    rmSync(join(tree, "hang"));
    const [[a], [b]] = await Promise.all([once(first, "exit"), once(second, "exit")]);
    expect([a, b]).toEqual([0, 0]);
    expect(notes()).toHaveLength(programs.length);
  });

  async function untilWaits(output: NodeJS.ReadableStream): Promise<void> {
    for await (const text of output) if (String(text).includes("waiting for it to end")) return;
    await new Promise(() => undefined);
  }
});

describe("where the archives can be reached", () => {
  // Serves `files` by path while `use` runs, and gives it the address.
  async function serving(files: Record<string, Buffer>, use: (base: string) => Promise<void>): Promise<void> {
    const server = createServer((request, response) => {
      const file = files[request.url ?? ""];
      response.writeHead(file === undefined ? 404 : 200).end(request.method === "HEAD" ? undefined : file);
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    server.close();
  }

  function archive(): Buffer {
    const folder = join(tree, "archive/controller-tools/envtest");
    for (const name of ["etcd", "kube-apiserver", "kubectl"]) {
      program(`archive/controller-tools/envtest/${name}`, "echo from the archive v1.34.1");
    }
    expect(existsSync(folder)).toBe(true);
    spawnSync("tar", ["-czf", join(tree, "archive.tar.gz"), "-C", join(tree, "archive"), "controller-tools"]);
    return readFileSync(join(tree, "archive.tar.gz"));
  }

  const architecture = process.arch === "arm64" ? "arm64" : "amd64";
  const archivePath = `/envtest-v1.34.1/envtest-v1.34.1-linux-${architecture}.tar.gz`;
  const released = ["kube-controller-manager", "kube-scheduler", "kubelet"];
  const releasePath = (name: string) => `/v1.34.1/bin/linux/${architecture}/${name}`;
  const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

  function pin(sum: string): void {
    const script = join(tree, "tools/setup/controlplane.sh");
    const text = readFileSync(script, "utf8").replaceAll(/(archive_sha256_\w+)=\w+/g, `$1=${sum}`);
    writeFileSync(script, text);
  }

  async function setUpFrom(base: string): Promise<{ status: number; output: string }> {
    const env = environment({ LONGSHORE_DOWNLOAD: "yes", LONGSHORE_ENVTEST_BASE: base, LONGSHORE_RELEASE_BASE: base });
    const child = spawn(join(tree, "tools/setup/setup.sh"), ["controlplane"], { env });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
    const [status] = await once(child, "close");
    return { status, output };
  }

  test("nothing is built but what is released as images only", async () => {
    const bytes = archive();
    pin(sha256(bytes));
    const binary = Buffer.from("#!/bin/sh\necho Kubernetes v1.34.1\n");
    const files: Record<string, Buffer> = { [archivePath]: bytes };
    for (const name of released) {
      files[releasePath(name)] = binary;
      files[`${releasePath(name)}.sha256`] = Buffer.from(sha256(binary));
    }
    await serving(files, async (base) => {
      expect((await setUpFrom(base)).status).toBe(0);
    });
    expect(notes()).toEqual(csiBuilds);
    for (const name of programs) expect(existsSync(link(name))).toBe(true);
    const built = csi.flatMap((name) => [name, `${name}.log`]);
    expect(readdirSync(store()).sort()).toEqual(["crds", "download.log", ...kubernetes, ...built].sort());
  });

  test("nothing is asked of them twice when they do not answer, and everything is built", async () => {
    let asked = 0;
    const server = createServer((request) => {
      asked += 1;
      request.destroy();
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { status } = await setUpFrom(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    server.close();
    expect({ status, asked, built: notes().length }).toEqual({ status: 0, asked: 1, built: programs.length });
  });

  test("an archive with another checksum is thrown away, and everything is built", async () => {
    const bytes = archive();
    await serving({ [archivePath]: bytes }, async (base) => {
      const { status, output } = await setUpFrom(base);
      expect(status).toBe(0);
      expect(output).toContain("envtest.tar.gz has another checksum than it should have");
    });
    expect(notes()).toHaveLength(programs.length);
  });
});

describe("the npm packages", () => {
  test("are installed once for each lock file", () => {
    expect(setUp("npm").status).toBe(0);
    expect(setUp("npm")).toEqual({ status: 0, output: "" });
    expect(notes()).toHaveLength(1);
    writeFileSync(join(tree, "package-lock.json"), '{"changed":true}');
    expect(setUp("npm").status).toBe(0);
    expect(notes()).toHaveLength(2);
  });

  test("that could not be installed are installed by the next run", () => {
    const working = readFileSync(join(tree, "bin/npm"), "utf8");
    program("bin/npm", "echo Missing: x from lock file >&2; exit 1");
    const { status, output } = setUp("npm");
    expect(status).toBe(1);
    expect(output).toMatch(/Missing: x[\s\S]*next: read .cache\/npm-ci.log/);
    writeFileSync(join(tree, "bin/npm"), working);
    expect(setUp("npm").status).toBe(0);
  });
});
