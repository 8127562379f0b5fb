import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "@jest/globals";
import manifest from "../../package.json" with { type: "json" };
import { configurationOf } from "./archive.ts";
import { imagesOf, storagePackages } from "./catalogue.ts";

const dockerfile = readFileSync(join(import.meta.dirname, "../../Dockerfile"), "utf8");

test("the Dockerfile and we make the same image: its packages, its user, its program, its Node.js", () => {
  const installed = /apt-get install --yes --no-install-recommends ([^\\]+)/.exec(dockerfile)?.[1]?.trim().split(/\s+/);
  expect(installed).toEqual([...storagePackages].sort());
  const [image] = imagesOf("longshore");
  expect(dockerfile).toContain(`USER ${image?.user}`);
  expect(dockerfile).toContain(`ENTRYPOINT ${JSON.stringify(image?.entrypoint)}`);
  expect(dockerfile).toContain("RUN node /tmp/javascript.ts src");
  expect(dockerfile).toContain("/opt/longshore/src/bin/longshore.js /usr/local/bin/longshore");
  const from = `FROM node:${manifest.devDependencies.node.split(".")[0]}-bookworm-slim`;
  expect(dockerfile.match(/^FROM \S+/gm)).toEqual([from, from]);
});

test("ours has the version of the package, and every image a name of its own", () => {
  const all = imagesOf("all");
  expect(all[0]?.reference).toBe(`longshore:${manifest.version}`);
  for (const field of ["name", "reference"] as const) {
    expect(new Set(all.map((image) => image[field])).size).toBe(all.length);
  }
});

test("an image says what runs, as whom, and of which layers it is", () => {
  const [image] = imagesOf("longshore");
  if (image === undefined) throw new Error("there is no image");
  expect(configurationOf(image, ["aa", "bb"], "x64")).toEqual({
    architecture: "amd64",
    os: "linux",
    created: "1970-01-01T00:00:00Z",
    config: {
      User: "65532:65532",
      Env: [`PATH=${image.path}`],
      Entrypoint: ["longshore"],
      WorkingDir: "/",
    },
    rootfs: { type: "layers", diff_ids: ["sha256:aa", "sha256:bb"] },
  });
});
