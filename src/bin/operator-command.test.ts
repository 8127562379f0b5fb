import { networkInterfaces } from "node:os";
import { expect, test } from "@jest/globals";
import { openMetrics } from "../base/metrics.ts";
import type { OperatorPhase } from "../kube/operator.ts";
import { runLongshore } from "./longshore.ts";
import { tellEnd } from "./operator-command.ts";
import { openProbes } from "./probes.ts";
import type { Streams } from "./streams.ts";

function streams(): Streams & { readonly said: string[] } {
  const said: string[] = [];
  const say = (text: string) => void said.push(text);
  const input = async () => "";
  return {
    said,
    out: say,
    err: say,
    input,
    isColoured: false,
    env: {},
    stop: new AbortController().signal,
    exitCode: 0,
  };
}

const given = ["operator", "--agents", "127.0.0.1:1", "--cert", "/none/a", "--key", "/none/b", "--ca", "/none/c"];

test.each([
  [["operator"], "--agents"],
  [[...given, "--lease", "somewhere"], "--lease somewhere: write namespace/name"],
  [[...given, "--listen", "9808"], "--listen 9808: write host:port or :port"],
  [[...given, "--listen", "0.0.0.0:98080"], "write host:port"],
  [[...given, "--log-level", "loud"], "--log-level loud: use trace, debug"],
  [given, "cannot read /none/"],
  [[...given, "--listen", ":9808"], "cannot read /none/"],
])("%j is refused, and says what is wrong", async (words, message) => {
  const terminal = streams();
  expect(await runLongshore(words, terminal)).not.toBe(0);
  expect(terminal.said.join("")).toContain(message);
});

test("one that leads no more says that it is to be started again; one that was stopped says nothing", () => {
  const [deposed, stopped] = [streams(), streams()];
  tellEnd("deposed", deposed);
  tellEnd("stopped", stopped);
  expect([deposed.exitCode, stopped.exitCode, stopped.said]).toEqual([3, 0, []]);
  expect(deposed.said.join("")).toMatch(/another operator leads now\n {2}next: Start this one again/);
});

test.each<[OperatorPhase, number, number]>([
  ["syncing", 200, 503],
  ["standby", 200, 200],
  ["leading", 200, 200],
  ["ended", 503, 503],
])("while %s, health answers %i and readiness %i", async (phase, healthy, ready) => {
  const probes = await openProbes({ host: "127.0.0.1", port: 0 }, { metrics: openMetrics(), phase: () => phase });
  const status = async (path: string) => (await fetch(`http://${probes.address}${path}`)).status;
  expect([await status("/healthz"), await status("/readyz"), await status("/none")]).toEqual([healthy, ready, 404]);
  await probes.close();
});

test("metrics are served in Prometheus' format", async () => {
  const metrics = openMetrics();
  metrics.counter("longshore_test_total", "For the test").add();
  const probes = await openProbes({ host: "127.0.0.1", port: 0 }, { metrics, phase: () => "leading" });
  const answer = await fetch(`http://${probes.address}/metrics`);
  expect(answer.headers.get("content-type")).toBe(metrics.contentType);
  expect(await answer.text()).toContain("longshore_test_total 1");
  await probes.close();
});

test("without a host they are served at every address, of either version of IP", async () => {
  const probes = await openProbes({ port: 0 }, { metrics: openMetrics(), phase: () => "leading" });
  const port = new URL(`http://${probes.address}`).port;
  const addresses = Object.values(networkInterfaces()).flatMap((each = []) => each.filter(({ internal }) => internal));
  expect(addresses.length).toBeGreaterThan(0);
  for (const { address, family } of addresses) {
    const host = family === "IPv6" ? `[${address}]` : address;
    expect((await fetch(`http://${host}:${port}/healthz`)).status).toBe(200);
  }
  await probes.close();
});

test("a port that is taken is an error at the start", async () => {
  const deps = { metrics: openMetrics(), phase: () => "leading" as const };
  const probes = await openProbes({ host: "127.0.0.1", port: 0 }, deps);
  const port = Number(probes.address.split(":")[1]);
  await expect(openProbes({ host: "127.0.0.1", port }, deps)).rejects.toThrow("EADDRINUSE");
  await probes.close();
});
