import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { seededDice } from "../base/dice.ts";
import { initAuthority, issueInto, readAuthority, readBundle, readIssued } from "./folder.ts";

const dayMs = 24 * 3_600_000;
let dir: string;
let nowMs: number;
const context = { clock: { nowMs: () => nowMs }, dice: seededDice(7) };
const request = { role: "agent", names: ["127.0.0.1"], days: 90, name: "agent", renew: false } as const;

beforeEach(async () => {
  dir = join(await mkdtemp(join(tmpdir(), "longshore-pki-")), "pki");
  nowMs = Date.UTC(2026, 0, 1);
});

afterEach(() => rm(join(dir, ".."), { recursive: true }));

const contents = async () =>
  Object.fromEntries(
    await Promise.all((await readdir(dir)).map(async (name) => [name, await readFile(join(dir, name), "utf8")])),
  );

describe("pki init", () => {
  test("makes a CA whose key only its owner reads, and again changes nothing", async () => {
    const made = await initAuthority(dir, { clusterName: "east" }, context);
    expect(made).toMatchObject({ made: true, certFile: join(dir, "ca.crt") });
    expect((await stat(join(dir, "ca.key"))).mode & 0o777).toBe(0o600);
    const before = await contents();
    expect(Object.keys(before).sort()).toEqual(["ca.crt", "ca.key"]);
    const again = await initAuthority(dir, { clusterName: "east" }, context);
    expect(again).toMatchObject({ made: false, clusterUid: made.clusterUid });
    expect(await contents()).toEqual(before);
    expect(await readAuthority(dir)).toMatchObject({ clusterUid: made.clusterUid, clusterName: "east" });
  });

  test("does not replace the CA of another cluster", async () => {
    await initAuthority(dir, { clusterName: "east", clusterUid: "u1" }, context);
    const before = await contents();
    await expect(initAuthority(dir, { clusterName: "west" }, context)).rejects.toMatchObject({ code: "NameTaken" });
    await expect(initAuthority(dir, { clusterName: "east", clusterUid: "u2" }, context)).rejects.toMatchObject({
      code: "NameTaken",
    });
    expect(await contents()).toEqual(before);
  });

  test.each(["East", "", "a/b", "-a"])("refuses the cluster name %p", async (clusterName) => {
    await expect(initAuthority(dir, { clusterName }, context)).rejects.toMatchObject({ code: "BadRequest" });
  });

  test("says what is missing when half of a pair is there", async () => {
    await initAuthority(dir, { clusterName: "east" }, context);
    await rm(join(dir, "ca.crt"));
    await expect(initAuthority(dir, { clusterName: "east" }, context)).rejects.toThrow("ca.key without ca.crt");
  });
});

describe("pki issue", () => {
  test("without a CA says how to make one", async () => {
    const message = `there is no CA in ${dir}; make one by: longshore pki init --dir ${dir}`;
    await expect(issueInto(dir, request, context)).rejects.toMatchObject({ code: "BadRequest", message });
  });

  test("keeps a certificate that fits, and refuses to replace one that does not", async () => {
    await initAuthority(dir, { clusterName: "east" }, context);
    expect(await issueInto(dir, request, context)).toMatchObject({ made: true, keyFile: join(dir, "agent.key") });
    expect((await stat(join(dir, "agent.key"))).mode & 0o777).toBe(0o600);
    const before = await contents();
    expect(await issueInto(dir, request, context)).toMatchObject({ made: false });
    await expect(issueInto(dir, { ...request, names: ["10.0.0.1"] }, context)).rejects.toThrow("--renew");
    await expect(issueInto(dir, { ...request, role: "admin" }, context)).rejects.toThrow("--renew");
    nowMs += 80 * dayMs;
    await expect(issueInto(dir, request, context)).rejects.toThrow("10 days left");
    expect(await contents()).toEqual(before);
  });

  test("replaces certificate and key when asked to renew", async () => {
    await initAuthority(dir, { clusterName: "east" }, context);
    await issueInto(dir, request, context);
    const before = await contents();
    await issueInto(dir, { ...request, renew: true }, context);
    const after = await contents();
    expect(after["agent.key"]).not.toBe(before["agent.key"]);
    expect(after["agent.crt"]).not.toBe(before["agent.crt"]);
    expect(after["ca.crt"]).toBe(before["ca.crt"]);
    expect(Object.keys(after)).toHaveLength(4);
  });
});

test("what was issued is read again; what was not says how it is made", async () => {
  await initAuthority(dir, { clusterName: "east" }, context);
  await issueInto(dir, request, context);
  const { "agent.crt": cert, "agent.key": key } = await contents();
  expect(await readIssued(dir, "agent")).toEqual({ cert, key });
  const message = `there is no certificate csi in ${dir}; make one by: longshore pki issue --dir ${dir} --role csi`;
  await expect(readIssued(dir, "csi")).rejects.toMatchObject({ code: "BadRequest", message });
});

describe("a CA's certificate alone", () => {
  const other = () => join(dir, "..", "other");
  const file = () => join(dir, "bundle.pem");
  const textOf = (folder: string, name: string) => readFile(join(folder, name), "utf8");

  beforeEach(async () => {
    await initAuthority(dir, { clusterName: "east", clusterUid: "u1" }, context);
  });

  test("says whose it is, and no key next to it is passed on", async () => {
    const cert = await textOf(dir, "ca.crt");
    await writeFile(file(), `# ours\n${await textOf(dir, "ca.key")}${cert}`);
    expect(await readBundle(file())).toEqual({ clusterName: "east", clusterUid: "u1", caBundle: cert });
  });

  test("may come with its successor, in their order", async () => {
    await initAuthority(other(), { clusterName: "east", clusterUid: "u1" }, context);
    const both = (await textOf(dir, "ca.crt")) + (await textOf(other(), "ca.crt"));
    await writeFile(file(), both);
    expect(await readBundle(file())).toMatchObject({ clusterUid: "u1", caBundle: both });
  });

  test.each([
    ["is not there", async () => "", "BadRequest", "bundle.pem; give the ca.crt that longshore pki init made"],
    ["holds none", async () => "nothing", "BadRequest", "holds no PEM certificate"],
    [
      "is a role's, not a CA's",
      async () => {
        await issueInto(dir, request, context);
        return textOf(dir, "agent.crt");
      },
      "BadRequest",
      "names no cluster",
    ],
    [
      "comes with that of another cluster",
      async () => {
        await initAuthority(other(), { clusterName: "east", clusterUid: "u2" }, context);
        return (await textOf(dir, "ca.crt")) + (await textOf(other(), "ca.crt"));
      },
      "BadRequest",
      "several clusters",
    ],
  ])("is refused when it %s", async (_, make, code, message) => {
    const text = await make();
    if (text !== "") await writeFile(file(), text);
    await expect(readBundle(file())).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
  });

  test("is not looked for in a folder", async () => {
    await expect(readBundle(dir)).rejects.toMatchObject({ code: "BadRequest", message: `cannot read ${dir}` });
  });
});
