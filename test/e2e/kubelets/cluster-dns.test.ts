import { Resolver } from "node:dns/promises";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import type { KubeClient, Seen } from "../kube-client.ts";
import { type ClusterDns, serveClusterDns } from "./cluster-dns.ts";
import { parseQuestion } from "./dns-message.ts";

const service = (namespace: string, name: string, clusterIP: string) => ({
  metadata: { namespace, name },
  spec: { clusterIP },
});

const objects: Readonly<Record<string, readonly object[]>> = {
  Service: [
    service("default", "kubernetes", "10.0.0.1"),
    service("longshore-node", "longshore-agent", "None"),
    service("bank", "empty", "None"),
  ],
  EndpointSlice: [
    {
      metadata: { namespace: "longshore-node", labels: { "kubernetes.io/service-name": "longshore-agent" } },
      endpoints: [
        { addresses: ["198.18.3.1"], hostname: "first", conditions: { ready: true } },
        { addresses: ["198.18.3.2"], hostname: "second" },
        { addresses: ["198.18.3.3"], hostname: "third", conditions: { ready: false } },
      ],
    },
    // The API server leaves the list out when it is empty.
    { metadata: { namespace: "bank", labels: { "kubernetes.io/service-name": "empty" } } },
  ],
};

let dns: ClusterDns;
const resolver = new Resolver({ timeout: 60_000, tries: 1 });

beforeAll(async () => {
  const list: KubeClient["list"] = async (kind) => (objects[kind] ?? []) as Seen[];
  dns = await serveClusterDns("127.0.0.1", { list });
  resolver.setServers([dns.address]);
});

afterAll(() => dns.close());

test.each([
  // name, what it means
  ["kubernetes.default.svc.cluster.local", ["10.0.0.1"]],
  ["Longshore-Agent.longshore-node.svc.cluster.local", ["198.18.3.1", "198.18.3.2"]],
  ["second.longshore-agent.longshore-node.svc.cluster.local", ["198.18.3.2"]],
])("%s means %j", async (name, addresses) => {
  expect(await resolver.resolve4(name)).toEqual(addresses);
});

test.each([
  // name, why not
  ["longshore-agent.longshore-node.svc.bank.svc.cluster.local", "ENOTFOUND"],
  ["nobody.longshore-node.svc.cluster.local", "ENOTFOUND"],
  ["third.longshore-agent.longshore-node.svc.cluster.local", "ENOTFOUND"],
  ["first.kubernetes.default.svc.cluster.local", "ENOTFOUND"],
  ["example.org", "ENOTFOUND"],
  ["empty.bank.svc.cluster.local", "ENODATA"],
])("%s means nothing: %s", async (name, code) => {
  await expect(resolver.resolve4(name)).rejects.toMatchObject({ code });
});

test("a name that exists has no IPv6 address, which is not the same as not being there", async () => {
  await expect(resolver.resolve6("kubernetes.default.svc.cluster.local")).rejects.toMatchObject({ code: "ENODATA" });
});

test("who asks while the API server is away is told to try again", async () => {
  const other = await serveClusterDns("127.0.0.1", { list: () => Promise.reject(new Error("away")) });
  const asking = new Resolver({ timeout: 60_000, tries: 1 });
  asking.setServers([other.address]);
  try {
    const asked = asking.resolve4("kubernetes.default.svc.cluster.local");
    await expect(asked).rejects.toMatchObject({ code: "ESERVFAIL" });
  } finally {
    await other.close();
  }
});

test("a question that is cut short anywhere is no question", () => {
  const header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
  const whole = Buffer.from([...header, 2, 0x4f, 0x4b, 3, 0x73, 0x76, 0x63, 0, 0, 1, 0, 1]);
  expect(parseQuestion(whole)).toMatchObject({ id: 7, name: "ok.svc", type: 1, isRecursionDesired: true });
  for (let length = 0; length < whole.length; length++) {
    expect(parseQuestion(whole.subarray(0, length))).toBeUndefined();
  }
});
