// Agents that are stopped: frozen past their lease, told to end in the middle of a job, or started twice on the same data.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "@jest/globals";
import { parse, stringify } from "yaml";
import { freePort } from "./free-port.ts";
import { isEqualByCmp } from "./images.ts";
import { onEachBackend } from "./on-each-backend.ts";
import { endOf, pointFile, type Side, soon, windowBytes } from "./pair.ts";
import { startLongshore } from "./process.ts";
import { TrackedVolume } from "./tracked-volume.ts";

const overhead = 1.02;

onEachBackend(
  (test) => {
    test("a source suspended past its lease finds the target thawed at the previous point, and its job ends well", async (pair) => {
      const { source, target } = pair;
      const volume = await TrackedVolume.make(pair, "suspended");
      const first = await volume.writeAndSnapshot(1);
      await volume.migrate("s1");
      await volume.writeAndSnapshot(2);
      const job = await volume.beginAndMeetMidway("s2");
      // A source that was late once is thawed as well, and goes on.
      await soon("the target being frozen", async () => (await volume.arrived()).state === "Frozen" || undefined);
      await source.agent().signal("SIGSTOP");
      const thawed = await soon("the target thawing by itself", async () => {
        const copy = await volume.arrived();
        return copy.state === "Available" ? copy : undefined;
      });
      expect(thawed.points.map(({ pointId }) => pointId)).toEqual([first.pointId]);
      const clone = await target.api.putClone("meanwhile", { migratedVolume: thawed.name, point: "latest" });
      expect(clone).toMatchObject({ state: "Ready", pointId: first.pointId });
      expect(await isEqualByCmp(String(clone.path), await pointFile(source, first.pointId))).toBe(true);
      await source.agent().signal("SIGCONT");
      await volume.setPace("full");
      await volume.succeeded(job);
      await volume.checkArrived("s2");
      await volume.checkSettled();
      // The clone lives by itself.
      expect(await isEqualByCmp(String(clone.path), await pointFile(source, first.pointId))).toBe(true);
    });

    for (const which of ["source", "target"] as const) {
      test(`a ${which} told to end in the middle of a job does so cleanly, and after its start the job goes on`, async (pair) => {
        const volume = await TrackedVolume.make(pair, `ended-${which}`);
        await volume.writeAndSnapshot(1);
        const job = await volume.beginAndMeetMidway("s1");
        const agent = pair[which].agent();
        await agent.signal("SIGTERM");
        expect(endOf(agent)).toContain("exit status 0");
        await pair.ready();
        await volume.setPace("full");
        const { bytesSent, bytesTotal } = await volume.succeeded(job);
        // A source that ends regularly records what it has sent.
        expect(bytesSent).toBeLessThanOrEqual((bytesTotal + windowBytes) * overhead);
        await volume.checkArrived("s1");
        await volume.checkSettled();
      });
    }

    test("a second agent on the same data is refused with the reason, and the first is not disturbed", async (pair) => {
      const volume = await TrackedVolume.make(pair, "twice");
      await volume.writeAndSnapshot(1);
      const job = await volume.beginAndMeetMidway("s1");
      for (const side of [pair.source, pair.target]) {
        const log = join(pair.folder, `${side.name}-second.log`);
        const second = startLongshore(["agent", "--config", await secondConfig(pair.folder, side)], log);
        const end = await soon("the second agent giving up", async () => endOf(second));
        expect(end).toMatch(/exit status [1-9]/);
        expect(end).toContain(`another agent is running on ${side.dataDir}; stop it first`);
      }
      await volume.setPace("full");
      expect(await volume.succeeded(job)).toMatchObject({ error: null });
      await volume.checkArrived("s1");
    });
  },
  () => ({ limits: { lease: "10s" } }),
);

/** The configuration of a side's agent, but for its ports: with the same ones it would not come as far as the data. */
async function secondConfig(folder: string, side: Side): Promise<string> {
  const config = parse(await readFile(join(folder, side.name, "agent.yaml"), "utf8"));
  const file = join(folder, `${side.name}-second.yaml`);
  const address = async () => `127.0.0.1:${await freePort()}`;
  const ports = { listen: await address(), laneListen: await address(), kernelLaneListen: await address() };
  await writeFile(file, stringify({ ...config, ...ports }));
  return file;
}
