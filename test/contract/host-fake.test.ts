import { test } from "@jest/globals";
import { FakeHost } from "../fakes/fake-host.ts";
import { hostContract } from "./host.ts";

for (const growsMountedExt4 of [true, false]) {
  hostContract(`in memory, which ${growsMountedExt4 ? "may" : "may not"} grow a mounted ext4`, {
    it: () => test,
    async open() {
      const host = new FakeHost({ growsMountedExt4 });
      return {
        host,
        kubeletDir: host.kubeletDir,
        async makeImage(name, sizeBytes) {
          host.makeImage(`/images/${name}`, sizeBytes);
          return `/images/${name}`;
        },
        growImage: async (path, sizeBytes) => host.growImage(path, sizeBytes),
        async scribble(path) {
          host.image(path).content = { kind: "other", what: "data of an unknown kind" };
        },
        deleteImage: async (path) => host.deleteImage(path),
        close: async () => undefined,
      };
    },
  });
}
