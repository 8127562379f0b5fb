import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { parse, parseAllDocuments } from "yaml";
import { runLongshore } from "../../src/bin/longshore.ts";
import type { Streams } from "../../src/bin/streams.ts";
import { version } from "../../src/bin/version.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type SecureAgent, secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";
import { onInterrupt } from "../interrupt.ts";

const program = join(import.meta.dirname, "..", "..", "src", "bin", "longshore.ts");

let pki: TestPki;
let agent: SecureAgent;
let folder: string;

beforeAll(async () => {
  pki = await testPki("east");
  await pki.credentials("admin");
  agent = await secureAgent(pki);
});

beforeEach(async () => {
  agent.reset();
  folder = await mkdtemp(join(tmpdir(), "longshore-command-"));
});

afterEach(() => rm(folder, { recursive: true }));

afterAll(async () => {
  await agent.close();
  await pki.remove();
});

/** Runs a command line in this process, as a person without a terminal. */
async function run(line: string | readonly string[], input = "") {
  const said = { out: "", err: "" };
  const streams: Streams = {
    out(text) {
      said.out += text;
    },
    err(text) {
      said.err += text;
    },
    input: async () => input,
    isColoured: false,
    env: { LONGSHORE_PKI: pki.dir, LONGSHORE_AGENT: agent.server.address },
    stop: new AbortController().signal,
    exitCode: 0,
  };
  const status = await runLongshore(typeof line === "string" ? line.split(" ") : line, streams);
  return { status, ...said };
}

async function aMigration(): Promise<void> {
  const { fake } = agent;
  await fake.putVolume("data", { sizeBytes: 2 ** 30, migrationEnabled: true });
  await fake.putSnapshot("data", "s1");
  await fake.putLocation("west", { clusterName: "west", seeds: ["10.0.0.1:7420"], caBundle: pki.caPem });
  await fake.putJob("job-1", { volume: "data", location: "west", snapshot: "s1" });
}

/** A group that arrived, with one group point. */
async function aGroup(): Promise<string> {
  const groupPoint = "ab".repeat(16);
  const { agentId: home, clusterUid: sourceClusterUid } = await agent.fake.describe();
  const committed = { groupPoint, job: "job-1", epoch: 3, committedAt: "2026-01-01T00:00:00.000Z" };
  const points = [{ ...committed, members: [{ volume: "uid-1", home, toId: "cd".repeat(16) }] }];
  const group = {
    name: "shop",
    source: "east",
    sourceClusterUid,
    home,
    state: "Idle" as const,
    epoch: 3,
    job: "job-1",
  };
  agent.fake.groups.set("shop", { ...group, points, revision: 1 });
  return groupPoint;
}

describe("nodes", () => {
  const other = { agentId: "00000000-0000-4000-8000-000000000002", node: "node-2", address: "127.0.0.1:1" };
  const away = (state: "unreachable" | "lost") => ({ ...other, laneAddress: "127.0.0.1:2", state });

  test("are listed with their agents and states, as a table and as JSON", async () => {
    agent.fake.view.members.push(away("lost"));
    const { out, err } = await run("node list");
    expect(out).toMatch(/NODE +AGENT +STATE/);
    expect(out).toMatch(/node-2 +00000000-0000-4000-8000-000000000002 +lost +127\.0\.0\.1:1 /);
    expect(err).toBe("");
    const members = JSON.parse((await run("node list --output json")).out);
    expect(members).toContainEqual(away("lost"));
  });

  test("are perhaps not all there where the agent asked is new: a list says so, and what depends on all of them is refused", async () => {
    agent.fake.view.isAcquainted = false;
    const { out, err, status } = await run("node list");
    expect(out).toContain(agent.fake.view.agentId);
    expect(err).toBe("warning: this agent is new and does not know yet who else there is\n");
    expect(status).toBe(0);
    const refused = await run("volume list");
    expect(refused.err).toContain(
      "is new and does not know yet who else there is; start the others, or ask one of them",
    );
    expect(refused.status).not.toBe(0);
  });

  test("one that does not answer is named once with what is shown of the others", async () => {
    await agent.fake.putVolume("data", { sizeBytes: 4096 });
    agent.fake.view.members.push(away("unreachable"));
    const { out, err, status } = await run("volume list");
    expect(out).toContain("data");
    expect(err).toMatch(/^warning: agent 00000000-0000-4000-8000-000000000002 on node node-2 does not answer/);
    expect(err.match(/warning/g)).toHaveLength(1);
    expect(status).toBe(0);
  });

  test("an agent that will not come back is forgotten by its id; one that answers is not", async () => {
    agent.fake.view.members.push(away("unreachable"));
    const { out } = await run(`node forget ${other.agentId}`);
    expect(out).toContain(`agent ${other.agentId} is forgotten`);
    expect(agent.fake.view.members.map(({ agentId }) => agentId)).not.toContain(other.agentId);
    expect(await run(`node forget ${agent.fake.view.agentId}`)).toMatchObject({
      status: 3,
      err: expect.stringContaining("answers; stop it first"),
    });
    expect((await run(`node forget ${other.agentId}`)).err).toContain("is not known here");
  });
});

describe("what an agent has", () => {
  test("as tables and as JSON", async () => {
    await aMigration();
    agent.fake.progressJob("job-1", { barrier: "Frozen", bytesTotal: 1000, bytesStored: 250 });
    const table = await run("job list");
    expect(table.status).toBe(0);
    const [titles, row] = table.out.split("\n");
    expect(titles).toMatch(/^NAME +VOLUME +LOCATION +MODE +STATE +BARRIER/);
    expect(row).toMatch(/^job-1 +data +west +- +Running +Frozen +25%/);
    const json = await run("job list --output json");
    expect(JSON.parse(json.out)).toEqual((await agent.fake.listJobs()).items);
    expect((await run("hold list")).out).toMatch(/data +s1 +job +job-1 +1(\.00)? ?Gi/);
    expect((await run("volume show data")).out).toMatch(/s1 +1 +sealed +no +job:job-1/);
    expect((await run("location list")).out).toMatch(/west +west +reachable/);
  });

  test.each(["volume", "location", "source", "migrated", "group", "clone", "job", "hold"])(
    "nothing of %s is said, not shown as an empty table",
    async (noun) => {
      expect(await run(`${noun} list`)).toMatchObject({
        status: 0,
        out: expect.stringMatching(/^(none|no jobs|no holds)\n$/),
      });
      expect(JSON.parse((await run(`${noun} list -o json`)).out)).toEqual([]);
    },
  );

  test("volumes are snapshotted together, and the point they share is told", async () => {
    for (const volume of ["data", "logs"]) await agent.fake.putVolume(volume, { sizeBytes: 2 ** 20 });
    const { status, out } = await run("group snapshot shop s1 --volume data --volume logs");
    const [snapshot] = (await agent.fake.getVolume("logs")).snapshots;
    expect(status).toBe(0);
    expect(out).toContain(`snapshot s1 of group shop has point ${snapshot?.groupPoint}`);
    expect(out).toMatch(/^data +1 .*\nlogs +1 /m);
    const json = await run("group snapshot shop s1 --volume data logs --output json");
    expect(JSON.parse(json.out)).toMatchObject({ groupPoint: snapshot?.groupPoint });
    expect((await run("group snapshot shop s1")).status).toBe(2);
  });

  test("one of each", async () => {
    await aMigration();
    agent.fake.arrive("mv", { source: "east" });
    agent.fake.freeze("mv");
    const { pointId } = agent.fake.commit("mv");
    await agent.fake.putClone("copy", { migratedVolume: "mv", point: "latest" });
    const groupPoint = await aGroup();
    expect((await run("group show east/shop")).out).toContain(groupPoint);
    expect((await run("group show west/shop")).status).toBe(1);
    await agent.fake.putSource("north", { clusterName: "north", caBundle: pki.caPem, quotaBytes: 2 ** 30 });
    expect((await run("migrated show mv")).out).toContain(pointId);
    expect((await run("clone show copy")).out).toMatch(/path +\/fake\/copy/);
    expect((await run("source show north")).out).toMatch(/quota +1(\.00)? ?Gi/);
    expect((await run("location show west")).out).toContain("10.0.0.1:7420");
    expect((await run("job show job-1")).out).toMatch(/from +nothing/);
    for (const noun of ["volume", "location", "source", "migrated", "group", "clone"])
      expect((await run(`${noun} list`)).out.split("\n").length).toBeGreaterThan(2);
  });

  test("a hold is put and dropped", async () => {
    await aMigration();
    expect((await run("hold put data s1 ann")).status).toBe(0);
    expect((await run("hold list")).out).toMatch(/user +ann/);
    expect((await run("hold drop data s1 ann")).status).toBe(0);
    expect((await run("hold list")).out).not.toMatch(/ann/);
    expect(await run("hold drop data s1 job-1 --reason job")).toMatchObject({ status: 2 });
  });
});

describe("asking for a job", () => {
  const rest = "--location west --snapshot s1";

  test("of a group, suspending, resuming and cancelling it, is what the agent is asked", async () => {
    await aMigration();
    await agent.fake.putVolume("more", { sizeBytes: 2 ** 30 });
    await agent.fake.putGroupSnapshot("shop", "g1", { volumes: ["data", "more"] });
    const made = await run("job create shop.g1 --group shop --volumes data,more --location west --snapshot g1");
    expect(made).toMatchObject({ status: 0, out: expect.stringMatching(/^group +shop$/m) });
    const spec = { group: { name: "shop", volumes: ["data", "more"] }, location: "west", snapshot: "g1" };
    const asked = async () => (await agent.fake.getJob("shop.g1")).spec;
    expect(await asked()).toEqual(spec);
    await run("job suspend shop.g1");
    expect(await asked()).toEqual({ ...spec, suspend: true });
    await run("job resume shop.g1");
    expect(await asked()).toEqual(spec);
    await run("job cancel shop.g1");
    expect((await agent.fake.getJob("shop.g1")).state).toBe("Cancelled");
  });

  test("that is there is by its own name, or by that of the MigrationJob that it was made for", async () => {
    await aMigration();
    const [name, again] = ["1", "2"].map((digit) => `now.3c8e2f0a-0000-4000-8000-00000000000${digit}`);
    const spec = { volume: "data", location: "west", snapshot: "s1" };
    await agent.fake.putJob(String(name), spec);
    expect((await run("job show now")).out).toMatch(new RegExp(`^job +${name}$`, "m"));
    await run("job suspend now");
    expect((await agent.fake.getJob(String(name))).spec).toEqual({ ...spec, suspend: true });
    await run("job cancel now");
    expect(await run("job follow now")).toMatchObject({ status: 1, out: expect.stringMatching(/^Cancelled/) });
    await agent.fake.putJob(String(again), spec);
    expect(await run("job resume now")).toMatchObject({ status: 2, err: expect.stringContaining(`${name}, ${again}`) });
    expect((await run("job show then")).err).toContain("no job then");
    expect((await run("job cancel --help")).out).toContain("MigrationJob");
  });

  test.each([
    ["neither a volume nor a group", rest],
    ["both", `${rest} --volume data --group shop --volumes data`],
    ["a group without its volumes", `${rest} --group shop`],
    ["volumes of no group", `${rest} --volume data --volumes data`],
  ])("of %s is refused before anything is asked", async (_what, options) => {
    expect(await run(`job create wrong ${options}`)).toMatchObject({ status: 2 });
    expect((await agent.fake.listJobs()).items).toEqual([]);
  });
});

describe("following a job", () => {
  test("shows it as it goes, and succeeds as it does", async () => {
    await aMigration();
    const followed = run("job follow job-1");
    agent.fake.progressJob("job-1", { barrier: "Frozen", bytesTotal: 2 ** 20, bytesStored: 2 ** 19 });
    agent.fake.succeedJob("job-1");
    const { status, out } = await followed;
    expect(status).toBe(0);
    expect(out.trimEnd().split("\n").at(-1)).toMatch(/^Succeeded {2}Released/);
  });

  test("fails as it does, and says why and what next", async () => {
    await aMigration();
    agent.fake.failJob("job-1", new LongshoreError("DiskFull", "the target is full"));
    const { status, err, out } = await run("job follow job-1 -o json");
    expect(status).toBe(1);
    expect(err).toContain("longshore: the target is full\n  next: Free space");
    expect(JSON.parse(out)).toMatchObject({ state: "Failed" });
  });
});

describe("failures have a status that scripts can tell apart, and a next step", () => {
  test.each([
    // command line, status, part of what is said
    ["volume show nothing", 1, "no volume nothing\n  next: Check the name"],
    ["volume list --agent 127.0.0.1:1", 3, "next: Check that the agent runs"],
    ["volume list --pki /nowhere", 2, "make one by: longshore pki issue --dir /nowhere --role admin"],
    ["volume list --role agent --pki /dev/null", 2, "cannot read /dev/null/agent."],
    ["volume list -o yaml", 2, "--output yaml: use table or json"],
    ["volume", 2, "Usage"],
    ["volume lst", 2, "unknown command"],
    ["job show", 2, "missing required argument"],
    ["sail", 2, "unknown command"],
    ["agent", 2, "--config"],
    ["agent --config /nowhere.yaml", 2, "cannot read /nowhere.yaml"],
    ["pki init --dir /tmp/x --cluster-name Not_OK", 2, "--cluster-name Not_OK"],
    ["pki issue --dir /nowhere --role agent", 2, "longshore pki init --dir /nowhere"],
    ["pki issue --dir /nowhere --role king", 2, "use agent, operator, csi, admin"],
    ["pki issue --dir /nowhere --role agent --days 0", 2, "--days 0"],
    ["pki issue --dir /nowhere --role agent --name ../ca", 2, "--name ../ca"],
    ["pki secrets --dir /nowhere", 2, "pki init made\n  next: Correct what the message names."],
    ["pair import west --as friend", 2, "whole pairing"],
  ])("%s", async (line, status, text) => {
    const result = await run(line);
    expect(result.err).toContain(text);
    expect(result.status).toBe(status);
  });

  test("help and version are no failures", async () => {
    expect(await run("--help")).toMatchObject({ status: 0, out: expect.stringContaining("Exit status: 0 done") });
    expect(await run("--version")).toMatchObject({ status: 0 });
  });
});

test("two clusters are paired by two pastes, and the YAML holds what the other side said", async () => {
  for (const name of ["one", "two"])
    expect((await run(`pki init --dir ${folder}/${name} --cluster-name ${name}`)).status).toBe(0);
  const exported = await run(`pair export --dir ${folder}/one --seeds 10.0.0.1:7420,10.0.0.2:7420`);
  const location = await run("pair import far --as location", `pasted:\n${exported.out}`);
  expect(parse(location.out)).toMatchObject({
    kind: "MigrationLocation",
    metadata: { name: "far" },
    spec: { clusterName: "one", seeds: ["10.0.0.1:7420", "10.0.0.2:7420"] },
  });
  expect(location.err).toMatch(/SHA-256 ([0-9A-F]{2}:){31}/);
  const source = await run("pair import far --as source --quota 1Ti", exported.out);
  expect(parse(source.out)).toMatchObject({ kind: "MigrationSource", spec: { quota: { bytes: "1Ti" } } });
  expect(parse(source.out).spec.caBundle).toBe(parse(location.out).spec.caBundle);
  expect((await run("pair import far --as source --quota much", exported.out)).status).toBe(2);
  expect((await run("pair export --dir /nowhere")).status).toBe(2);
  expect((await run(`pair export --dir ${folder}/one --seeds nowhere`)).status).toBe(2);
});

test("a cluster's certificates become the Secrets of manifests/ once there is one for each role", async () => {
  const dir = `${folder}/pki`;
  await run(`pki init --dir ${dir} --cluster-name east`);
  for (const role of ["operator", "csi"]) await run(`pki issue --dir ${dir} --role ${role}`);
  const lacking = await run(`pki secrets --dir ${dir}`);
  expect(lacking).toMatchObject({ status: 2, out: "", err: expect.stringContaining("pki issue") });
  await run(`pki issue --dir ${dir} --role agent`);
  const { status, out } = await run(`pki secrets --dir ${dir}`);
  expect(status).toBe(0);
  const names = parseAllDocuments(out).map((document) => document.toJS().metadata.name);
  expect(names).toEqual(["longshore-operator-pki", "longshore-csi-pki", "longshore-agent-pki", "longshore-csi-pki"]);
});

test("the library that makes certificates is not loaded by a command that makes none", async () => {
  const program = pathToFileURL(join(import.meta.dirname, "../../src/bin/longshore.ts")).href;
  const says = `await import(${JSON.stringify(program)}); console.log(typeof Reflect.getMetadata);`;
  const child = spawn("node", ["--input-type=module", "--eval", says], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "close");
  expect(await text(child.stdout)).toBe("undefined\n");
  expect(await ended).toEqual([0, null]);
});

describe("what was compiled of the program", () => {
  const { NODE_COMPILE_CACHE: _, HOME: __, ...bare } = process.env;

  /** What is in the folder after the program, started as users do, has said nothing but its version. */
  async function leftBy(env: NodeJS.ProcessEnv): Promise<string[]> {
    const child = spawn(program, ["--version"], { env: { ...bare, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    const said = Promise.all([text(child.stdout), text(child.stderr)]);
    expect(await once(child, "close")).toEqual([0, null]);
    expect(await said).toEqual([`${version}\n`, ""]);
    // Node.js makes a folder for each of its versions.
    const found = await readdir(folder, { recursive: true });
    return found.filter((path) => /^v\d/.test(basename(path))).map((path) => dirname(path));
  }

  test.each([
    ["below the user's home", () => ({ HOME: folder }), [".cache/longshore/code"]],
    ["where the user says", () => ({ HOME: folder, NODE_COMPILE_CACHE: join(folder, "mine") }), ["mine"]],
    ["nowhere when the user wants none", () => ({ HOME: folder, NODE_COMPILE_CACHE: "" }), []],
    ["nowhere when there is no home", () => ({}), []],
    ["nowhere when the home is not there", () => ({ HOME: join(folder, "nobody") }), []],
    ["nowhere when the home takes no folder", () => ({ HOME: program }), []],
  ])("is kept %s", async (_, env, places) => {
    expect(await leftBy(env())).toEqual(places);
  });
});

test("a cluster is exported by its CA's certificate alone, on a machine that does not have the key", async () => {
  await run(`pki init --dir ${folder}/keyed --cluster-name keyed`);
  await mkdir(`${folder}/keyless`);
  await copyFile(`${folder}/keyed/ca.crt`, `${folder}/keyless/trusted.pem`);
  const byFolder = await run(`pair export --dir ${folder}/keyed --seeds 10.0.0.1:7420`);
  const byFile = await run(`pair export --ca ${folder}/keyless/trusted.pem --seeds 10.0.0.1:7420`);
  expect(byFile).toEqual(byFolder);
  expect(byFile).toMatchObject({ status: 0, out: expect.stringContaining("clusterName: keyed") });
  expect((await run("pair export --ca /nowhere/ca.crt")).status).toBe(2);
  for (const line of ["pair export", `pair export --dir ${folder}/keyed --ca ${folder}/keyless/trusted.pem`])
    expect(await run(line)).toMatchObject({ status: 2, err: expect.stringContaining("--dir") });
});

test("output that nobody reads any more ends the program, as it ends others, without a word", async () => {
  const child = spawn("node", [program, "--help"], { stdio: ["ignore", "pipe", "pipe"] });
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  child.stdout.destroy();
  const [said, [status]] = await Promise.all([text(child.stderr), once(child, "close")]);
  forget();
  expect([said, status]).toEqual(["", 141]);
});

describe("longshore agent as a process", () => {
  test("says when it is ready, and ends with status 0 when told to", async () => {
    const { child, ready } = start(await configFile({}));
    expect(await ready).toMatch(/is ready: API 127\.0\.0\.1:\d+, lanes 127\.0\.0\.1:\d+, backend copy/);
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
  });

  test("names each mistake of its configuration by line, and ends with status 2", async () => {
    const { child, said } = start(await configFile({ node: "", sail: true }));
    expect(await once(child, "close")).toEqual([2, null]);
    expect(said()).toMatch(
      /agent\.yaml needs correction:\n {2}line \d+: sail is not a field.*\n {2}line 2: node is ""/,
    );
  });
});

async function configFile(more: object): Promise<string> {
  const fields = {
    clusterName: "east",
    node: "node-1",
    listen: "127.0.0.1:0",
    laneListen: "127.0.0.1:0",
    dataDir: join(folder, "data"),
    backend: "copy",
    tls: pki.files("agent"),
    ...more,
  };
  const file = join(folder, "agent.yaml");
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${JSON.stringify(value)}\n`);
  await writeFile(file, lines.join(""));
  return file;
}

function start(config: string): { child: ChildProcess; ready: Promise<string>; said: () => string } {
  const child = spawn("node", [program, "agent", "--config", config], { stdio: ["ignore", "ignore", "pipe"] });
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  child.once("exit", forget);
  let text = "";
  const ready = new Promise<string>((resolve, reject) => {
    child.stderr?.on("data", (part: Buffer) => {
      text += part.toString("utf8");
      if (text.includes("is ready")) resolve(text);
    });
    child.once("exit", (code) => reject(new Error(`ended with ${code}: ${text}`)));
  });
  ready.catch(() => {});
  return { child, ready, said: () => text };
}
