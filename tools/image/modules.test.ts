import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { copyFolders, type LockFile, neededFolders } from "./modules.ts";

const linux = { os: "linux", cpu: "x64" };

describe("of the locked packages", () => {
  const rows: [what: string, locked: LockFile["packages"][string], isNeeded: boolean, isOptional: boolean][] = [
    ["what runs", {}, true, false],
    ["what is for development", { dev: true }, false, false],
    ["what is for this platform", { optional: true, os: ["linux"], cpu: ["x64"] }, true, true],
    ["what is for another system", { optional: true, os: ["darwin"] }, false, false],
    ["what is for another processor", { optional: true, os: ["linux"], cpu: ["arm64"] }, false, false],
    ["what is for all systems but one", { os: ["!win32"] }, true, false],
    ["what is for all systems but this", { os: ["!linux"] }, false, false],
    ["what is for development or optional", { devOptional: true }, true, true],
  ];
  test.each(rows)("%s is taken, or left out", (_, locked, isNeeded, isOptional) => {
    const lock = { packages: { "": {}, "node_modules/one": locked } };
    expect(neededFolders(lock, linux)).toEqual(isNeeded ? [{ path: "node_modules/one", isOptional }] : []);
  });
});

describe("copying", () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "longshore-modules-"));
  });

  afterEach(() => rmSync(folder, { recursive: true }));

  function install(path: string): void {
    mkdirSync(join(folder, "tree", path), { recursive: true });
    writeFileSync(join(folder, "tree", path, "package.json"), "{}");
  }

  const lock: LockFile = {
    packages: {
      "node_modules/one": {},
      "node_modules/one/node_modules/dev": { dev: true },
      "node_modules/one/node_modules/two": {},
      "node_modules/three": { optional: true },
    },
  };
  const copy = () => copyFolders(neededFolders(lock, linux), join(folder, "tree"), join(folder, "copy"));

  test("takes what is needed, and not what lies within it for development", async () => {
    for (const path of Object.keys(lock.packages)) if (!path.endsWith("three")) install(path);
    await copy();
    const copied = readdirSync(join(folder, "copy"), { recursive: true, encoding: "utf8" });
    expect(copied.filter((file) => file.endsWith("package.json")).sort()).toEqual([
      "node_modules/one/node_modules/two/package.json",
      "node_modules/one/package.json",
    ]);
  });

  test("names what is not installed", async () => {
    install("node_modules/one");
    await expect(copy()).rejects.toThrow("node_modules/one/node_modules/two is not installed; run make setup");
  });
});
