// A real agent that is killed or stopped while a file system is frozen: nothing stays frozen, and no snapshot counts that was
// not taken of a frozen volume.
import { execFileSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect } from "@jest/globals";
import { openCredentials } from "../../src/wire/credentials.ts";
import type { MemberApi } from "../../src/wire/member.ts";
import { openMemberClient } from "../../src/wire/member-client.ts";
import type { SnapshotView } from "../../src/wire/schemas.ts";
import { guardsOf } from "../fakes/freeze-guards.ts";
import { startWriter, type Writer } from "../fakes/held-up-writer.ts";
import { type LoopFs, mountLoop } from "../fakes/loop-fs.ts";
import { type MountedImage, mountImage } from "../fakes/mounted-image.ts";
import { type TemporaryFolder, temporaryFolder } from "../fakes/temporary-folder.ts";
import { missing, needs } from "../needs.ts";
import { eventually } from "./process.ts";
import { type StorageCluster, startStorageCluster } from "./storage-cluster.ts";

const mebibyte = 2 ** 20;
const patience = { timeoutMs: 60_000 };
const testMsMax = 600_000;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const frozenTest = needs("root", "xfs");

describe.each(["reflink", "copy"] as const)(
  "an agent with the %s backend, its volume mounted and frozen",
  (backend) => {
    let folder: TemporaryFolder;
    let disk: LoopFs;
    let cluster: StorageCluster;
    let image: MountedImage;
    let member: MemberApi & { close(): Promise<void> };
    let credentials: Awaited<ReturnType<typeof openCredentials>>;
    let round = 0;

    beforeAll(async () => {
      if (missing("root") !== undefined || missing("xfs") !== undefined) return;
      folder = await temporaryFolder("frozen-agent");
      disk = await mountLoop({ fs: "xfs", sizeBytes: 400 * mebibyte });
      await mkdir(join(folder.path, "east"));
      const dataDir = join(disk.path, "longshore");
      // Parts that nobody confirms go after three times the longest freeze.
      const limits = { freeze: "2s" };
      cluster = await startStorageCluster({
        name: "east",
        folder: join(folder.path, "east"),
        dataDir,
        backend,
        limits,
      });
      const { path } = await cluster.api.putVolume("data", { sizeBytes: 32 * mebibyte });
      image = await mountImage(path, { fs: "ext4" });
      const file = (name: string) => join(cluster.pki, name);
      const files = { certFile: file("agent.crt"), keyFile: file("agent.key"), caFile: file("ca.crt") };
      credentials = await openCredentials(files);
      member = openMemberClient({ address: cluster.address, credentials });
    }, testMsMax);

    afterEach(async () => {
      await cluster?.agent().signal("SIGCONT");
    });

    afterAll(async () => {
      if (folder === undefined) return;
      await member?.close();
      credentials?.close();
      await image?.unmount();
      await cluster?.stop();
      await disk?.unmount();
      await folder.remove();
    }, testMsMax);

    const newPart = () => ({ group: "g", groupPoint: String(++round).padStart(32, "0"), name: `s${round}` });

    async function freeze(timeoutMs: number) {
      const part = newPart();
      const { group, groupPoint } = part;
      await member.freeze({ group, groupPoint, volumes: ["data"], timeoutMs });
      const writer = startWriter(join(image.path, `file-${round}`));
      await heldUp(writer);
      return { part, writer };
    }

    const thaw = ({ group, groupPoint }: ReturnType<typeof newPart>) => member.thaw({ group, groupPoint });

    async function heldUp(writer: Writer): Promise<void> {
      await eventually("the writer being held up", async () => (writer.isHeldUp() ? true : undefined), patience);
    }

    async function guard(): Promise<number> {
      const [found] = guardsOf(cluster.agent().pid);
      if (found === undefined) throw new Error("nothing is frozen");
      return found;
    }

    async function snapshots(): Promise<readonly SnapshotView[]> {
      return (await cluster.api.getVolume("data")).snapshots;
    }

    frozenTest(
      "is killed: it is thawed at once, and the snapshot that was not confirmed goes",
      async () => {
        const { part, writer } = await freeze(600_000);
        await member.snapshotFrozen(part);
        expect(await snapshots()).toMatchObject([{ name: part.name, state: "creating" }]);
        await cluster.agent().signal("SIGKILL");
        await writer.done;
        await cluster.start();
        expect(await thaw(part)).toEqual({ wasFrozen: false, frozenMs: 0 });
        await eventually(
          "the part being dropped",
          async () => ((await snapshots()).length === 0 ? true : undefined),
          patience,
        );
      },
      testMsMax,
    );

    frozenTest(
      "is stopped: it is thawed when its time is over, and its thaw says so",
      async () => {
        const { part, writer } = await freeze(12_000);
        await member.snapshotFrozen(part);
        await cluster.agent().signal("SIGSTOP");
        await writer.done;
        await cluster.agent().signal("SIGCONT");
        expect(await thaw(part)).toMatchObject({ wasFrozen: false });
        await member.discardGroup(part);
        expect(await snapshots()).toEqual([]);
      },
      testMsMax,
    );

    frozenTest(
      "loses the guard: it is thawed at once, and its thaw says so",
      async () => {
        const { part, writer } = await freeze(600_000);
        process.kill(await guard(), "SIGKILL");
        await writer.done;
        expect(await thaw(part)).toMatchObject({ wasFrozen: false });
      },
      testMsMax,
    );

    frozenTest(
      "is killed with its guard: the next start thaws it",
      async () => {
        const { writer } = await freeze(600_000);
        const pid = await guard();
        process.kill(pid, "SIGSTOP");
        await cluster.agent().signal("SIGKILL");
        process.kill(pid, "SIGKILL");
        expect(writer.isHeldUp()).toBe(true);
        await cluster.start();
        await writer.done;
      },
      testMsMax,
    );

    frozenTest(
      "is told to end: it is thawed before that",
      async () => {
        const { writer } = await freeze(600_000);
        await cluster.agent().signal("SIGTERM");
        await writer.done;
        await cluster.start();
      },
      testMsMax,
    );

    frozenTest(
      "takes a plain snapshot of it frozen, so that it needs no repair",
      async () => {
        await startWriter(join(image.path, "plain")).done;
        const { pointId, state, stallMs } = await eventually("a snapshot", () =>
          cluster.api.putSnapshot("data", "plain"),
        );
        expect([state, stallMs > 0]).toEqual(["sealed", true]);
        await startWriter(join(image.path, "after")).done;
        const { uid } = await cluster.api.getVolume("data");
        const point = cluster.pointFile(uid, pointId);
        const run = (command: string, ...words: string[]) =>
          execFileSync(command, words, { env, stdio: "pipe" }).toString();
        expect(run("dumpe2fs", "-h", point)).not.toContain("needs_recovery");
        expect(run("debugfs", "-R", "cat /plain", point)).toBe("written\n");
        expect(run("debugfs", "-R", "ls /", point)).not.toContain("after");
      },
      testMsMax,
    );
  },
);
