import { cp, mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { systemClock } from "../base/clock.ts";
import { systemDice } from "../base/dice.ts";
import { openLog } from "../base/log.ts";
import { issueCertificate, makeAuthority } from "../pki/certificate.ts";
import { type Credentials, openCredentials } from "./credentials.ts";

let dir: string;
let opened: Credentials[];
let warnings: string[];
let warned: () => void;
const authority = await makeAuthority({ clusterName: "east", clusterUid: "u-east" }, systemClock.nowMs(), systemDice);
const log = openLog(
  { name: "test", level: "warn" },
  {
    write(line) {
      warnings.push((JSON.parse(line) as { err: { message: string } }).err.message);
      warned();
    },
  },
);

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "longshore-credentials-"));
  opened = [];
  warnings = [];
  warned = () => {};
});

afterEach(async () => {
  for (const credentials of opened) credentials.close();
  await rm(dir, { recursive: true });
});

const files = () => ({ certFile: join(dir, "tls.crt"), keyFile: join(dir, "tls.key"), caFile: join(dir, "ca.crt") });

function issued(role: "agent" | "operator" = "agent", by = authority, clusterUid = "u-east") {
  return issueCertificate(by, { clusterUid, role, names: [], days: 1 }, systemClock.nowMs(), systemDice);
}

async function write(pair: { cert: string; key: string }, ca = authority.cert, folder = dir): Promise<void> {
  await writeFile(join(folder, "ca.crt"), ca);
  await writeFile(join(folder, "tls.key"), pair.key);
  await writeFile(join(folder, "tls.crt"), pair.cert);
}

async function openIt(): Promise<Credentials> {
  const credentials = await openCredentials(files(), { log });
  opened.push(credentials);
  return credentials;
}

const changed = (credentials: Credentials) => new Promise<void>((resolve) => void credentials.onChange(resolve));

test("says who we are, and gives the texts as they are in the files", async () => {
  const pair = await issued();
  await write(pair);
  const credentials = await openIt();
  expect(credentials.identity).toEqual({ clusterUid: "u-east", role: "agent" });
  expect(credentials.current()).toEqual({ ...pair, ca: authority.cert });
});

describe("at the start, an error names the file when", () => {
  test.each([
    ["it is missing", () => rm(join(dir, "tls.key")), /cannot read .*tls\.key/],
    [
      "the key is of another certificate",
      async () => writeFile(join(dir, "tls.key"), (await issued()).key),
      /tls\.key is not the key of .*tls\.crt/,
    ],
    ["the key is none", () => writeFile(join(dir, "tls.key"), "nothing"), /tls\.key holds no private key/],
    ["the certificate is none", () => writeFile(join(dir, "tls.crt"), "nothing"), /tls\.crt holds no PEM/],
    ["the certificate names nobody", () => write(authority), /no URI name longshore/],
    [
      "the CA is another",
      async () =>
        writeFile(
          join(dir, "ca.crt"),
          (await makeAuthority({ clusterName: "x", clusterUid: "x" }, 0, systemDice)).cert,
        ),
      /does not fit .*ca\.crt/,
    ],
  ])("%s", async (_, damage, message) => {
    await write(await issued());
    await damage();
    await expect(openIt()).rejects.toMatchObject({ code: "BadRequest", message: expect.stringMatching(message) });
  });
});

describe("when the files change", () => {
  test("the new pair is taken in once it is whole, and not before", async () => {
    const [first, second] = await Promise.all([issued(), issued()]);
    await write(first);
    const credentials = await openIt();
    // What is read while the file is being written is complained of as well.
    const complaint = new Promise<void>((resolve) => {
      warned = () => warnings.some((text) => text.includes("is not the key of")) && resolve();
    });
    await writeFile(files().keyFile, second.key);
    await complaint;
    expect(credentials.current().key).toBe(first.key);
    const whole = changed(credentials);
    await writeFile(files().certFile, second.cert);
    await whole;
    expect(credentials.current()).toEqual({ ...second, ca: authority.cert });
  });

  test("a mounted Secret's swap of links is noticed", async () => {
    const [first, second] = await Promise.all([issued(), issued()]);
    for (const [name, pair] of [
      ["..one", first],
      ["..two", second],
    ] as const) {
      await mkdir(join(dir, name));
      await write(pair, authority.cert, join(dir, name));
    }
    await symlink("..one", join(dir, "..data"));
    for (const name of ["tls.crt", "tls.key", "ca.crt"]) await symlink(join("..data", name), join(dir, name));
    const credentials = await openIt();
    expect(credentials.current().cert).toBe(first.cert);
    const whole = changed(credentials);
    await symlink("..two", join(dir, "..data_tmp"));
    await rename(join(dir, "..data_tmp"), join(dir, "..data"));
    await whole;
    expect(credentials.current()).toEqual({ ...second, ca: authority.cert });
  });

  test("another role is not taken in", async () => {
    const first = await issued();
    await write(first);
    const credentials = await openIt();
    const complaint = new Promise<void>((resolve) => {
      warned = () => warnings.some((text) => text.includes("operator of cluster u-east")) && resolve();
    });
    await write(await issued("operator"));
    await complaint;
    expect(credentials.current()).toEqual({ ...first, ca: authority.cert });
  });

  test("a folder that nobody tells of changes is read on a timer", async () => {
    const [first, second] = await Promise.all([issued(), issued()]);
    await write(first);
    const elsewhere = await mkdtemp(join(tmpdir(), "longshore-elsewhere-"));
    try {
      await cp(dir, elsewhere, { recursive: true });
      for (const name of ["tls.crt", "tls.key", "ca.crt"]) {
        await rm(join(dir, name));
        await symlink(join(elsewhere, name), join(dir, name));
      }
      let tick = () => {};
      const untilTick = () =>
        new Promise<void>((resolve) => {
          tick = resolve;
        });
      const clock = { ...systemClock, sleep: untilTick };
      const credentials = await openCredentials(files(), { log, clock });
      opened.push(credentials);
      await write(second, authority.cert, elsewhere);
      const whole = changed(credentials);
      tick();
      await whole;
      expect(credentials.current().cert).toBe(second.cert);
    } finally {
      await rm(elsewhere, { recursive: true });
    }
  });

  test("who has unsubscribed is left alone", async () => {
    await write(await issued());
    const credentials = await openIt();
    let calls = 0;
    credentials.onChange(() => calls++)();
    const whole = changed(credentials);
    await write(await issued());
    await whole;
    expect(calls).toBe(0);
  });
});
