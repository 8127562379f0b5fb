import { describe, expect, test } from "@jest/globals";
import { parse } from "yaml";
import { defaultLimits } from "../engine/engine-options.ts";
import { parseAgentConfig } from "./config.ts";

const least = `
clusterName: east
node: n1
advertiseAddress: 10.0.0.1
dataDir: data
tls: { certFile: tls.crt, keyFile: tls.key, caFile: /etc/ca.crt }
`;

const read = (text: string) => parseAgentConfig(parse(text), { file: "agent.yaml", folder: "/etc/longshore" });

function complaint(text: string): string {
  try {
    read(text);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("it was accepted");
}

test("the least there can be is filled up with defaults, and paths are taken from the file's folder", () => {
  expect(read(least)).toEqual({
    clusterName: "east",
    node: "n1",
    listen: { host: "0.0.0.0", port: 7420 },
    laneListen: { host: "0.0.0.0", port: 7421 },
    advertiseAddress: "10.0.0.1",
    seeds: [],
    dataDir: "/etc/longshore/data",
    backend: "auto",
    tls: { certFile: "/etc/longshore/tls.crt", keyFile: "/etc/longshore/tls.key", caFile: "/etc/ca.crt" },
    limits: defaultLimits,
    logLevel: "info",
  });
});

test("everything can be said", () => {
  const config = read(`${least}
listen: "[fd00::1]:1"
laneListen: node-1:65535
kernelLaneListen: node-1:7422
seeds: [agents.example:7420, "[fd00::2]:7420"]
backend: copy
logLevel: debug
limits: { jobsMax: 2, window: 1Mi, lease: 1m30s, reserve: 0, retryDelay: 10ms, jobHistory: 24h, memberInterval: 3s }
`);
  expect(config).toMatchObject({
    listen: { host: "fd00::1", port: 1 },
    laneListen: { host: "node-1", port: 65535 },
    kernelLaneListen: { host: "node-1", port: 7422 },
    seeds: ["agents.example:7420", "[fd00::2]:7420"],
    backend: "copy",
    logLevel: "debug",
    limits: { jobsMax: 2, windowBytes: 2 ** 20, leaseMs: 90_000, reserveBytes: 0, retryDelayMs: 10 },
  });
  expect(config.limits).toMatchObject({ jobHistoryMs: 86_400_000, memberIntervalMs: 3_000 });
});

test("an address listened at is advertised, a wildcard cannot be", () => {
  const without = least.replace(/advertiseAddress.*\n/, "");
  expect(read(`${without}listen: 10.0.0.7:7420`).advertiseAddress).toBe("10.0.0.7");
  expect(complaint(without)).toContain("advertiseAddress is missing");
  expect(complaint(least.replace("10.0.0.1", "0.0.0.0"))).toContain("nobody can connect to a wildcard");
});

const addresses = ["10.0.0.1", "node-1.example", "fd00::1", "2001:db8:1:2:3:4:5:6", "fd00::"];
test.each(addresses)("%s can be advertised as it is", (address) => {
  expect(read(least.replace("10.0.0.1", `"${address}"`)).advertiseAddress).toBe(address);
});

describe("a mistake is named by its field, with what it has to be:", () => {
  test.each([
    ["clusterNam: east", "clusterNam is not a field; use clusterName, node"],
    ["clusterName: East", 'clusterName is "East", but has to be the name of this storage cluster'],
    ["node: 7", "node is 7"],
    ["listen: 7420", "listen is 7420, but has to be host:port of the API, such as 0.0.0.0:7420"],
    ["listen: a:70000", "listen is"],
    ["seeds: [a:0]", 'seeds is ["a:0"], but has to be a list of host:port'],
    ["advertiseAddress: 10.0.0.1:7420", "a host alone, without port"],
    ['advertiseAddress: "[fd00::1]:7420"', "a host alone, without port or brackets"],
    ['advertiseAddress: "[fd00::1]"', "a host alone, without port or brackets"],
    ["seeds: a:7420", 'seeds is "a:7420", but has to be a list of host:port of agents of this cluster'],
    ["seeds: [a]", 'seeds is ["a"], but has to be a list of host:port'],
    ["backend: zfs", 'backend is "zfs", but has to be auto, reflink or copy'],
    ["logLevel: loud", "logLevel is"],
    ["limits: 5", "limits has to hold fields: jobsMax"],
    ["limits: { jobMax: 5 }", "limits.jobMax is not a field; use jobsMax"],
    ["limits: { jobsMax: 0 }", "limits.jobsMax is 0, but has to be a whole number from 1"],
    ["limits: { lease: 30 }", "limits.lease is 30, but has to be a duration such as 30s"],
    ["limits: { lease: 0s }", "limits.lease is"],
    ["limits: { window: much }", 'limits.window is "much", but has to be a size such as 64Mi'],
    ["limits: { unit: 5000 }", "limits.unit is 5000, but has to be a size such as 64Mi (a multiple of 4Ki, up to 8Mi)"],
    ["limits: { unit: 16Mi }", "a multiple of 4Ki, up to 8Mi"],
    ["limits: { leaseMs: 5 }", "limits.leaseMs is not a field"],
    ["tls: nothing", "tls has to hold fields: certFile, keyFile, caFile"],
    ["tls: { certFile: a, keyFile: b }", "tls.caFile is missing"],
  ])("%s", (line, text) => {
    const name = line.split(":")[0] ?? "";
    const others = least.split("\n").filter((one) => !one.startsWith(`${name}:`));
    expect(complaint([...others, line].join("\n"))).toContain(text);
  });

  test("all of them at once, with their lines", () => {
    const lines: Record<string, number> = { node: 3, "limits.jobsMax": 9 };
    const tree = { ...parse(least), node: "", backend: "zfs", limits: { jobsMax: "x" } };
    const lineOf = (path: readonly string[]) => lines[path.join(".")];
    expect(() => parseAgentConfig(tree, { file: "agent.yaml", folder: "/", lineOf })).toThrow(
      [
        "agent.yaml needs correction:",
        '  line 3: node is "", but has to be the name of this node (it is no text)',
        '  backend is "zfs", but has to be auto, reflink or copy (one of auto, reflink, copy)',
        '  line 9: limits.jobsMax is "x", but has to be a whole number from 1 (it is not within 1 to 1000000)',
      ].join("\n"),
    );
  });

  test.each(["", "null", "[]", "text"])("a file that is %p", (text) => {
    expect(complaint(text)).toMatch(/the file has to hold fields|clusterName is missing/);
  });
});
