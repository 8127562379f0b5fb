import { describe, expect, test } from "@jest/globals";
import { parse } from "yaml";
import { seededDice } from "../base/dice.ts";
import { makeAuthority } from "../pki/certificate.ts";
import { fingerprints, locationOf, parsePairing, renderPairing, sourceOf } from "./pairing.ts";

const nowMs = Date.UTC(2026, 0, 1);
const cluster = { clusterName: "east", clusterUid: "uid-east" };
const [{ cert: caBundle }, { cert: otherCa }] = await Promise.all([
  makeAuthority(cluster, nowMs, seededDice(1)),
  makeAuthority(cluster, nowMs, seededDice(2)),
]);
const pairing = { ...cluster, seeds: ["10.0.0.1:7420", "[fd00::1]:7420"], caBundle };
const text = renderPairing(pairing);

test("a pairing comes through copy and paste, whatever stands around it", () => {
  const pasted = `$ longshore pair export\r\n${text.replaceAll("\n", "   \r\n")}\r\n$ `;
  expect(parsePairing(pasted)).toEqual(pairing);
  expect(text).toContain("clusterName: east");
  expect(text).not.toContain("PRIVATE");
});

describe("a pairing is refused when it was", () => {
  test.each([
    ["cut off", text.slice(0, -30), "whole pairing"],
    ["not there", "", "whole pairing"],
    ["given another seed", text.replace("10.0.0.1", "10.6.6.6"), "changed on the way"],
    ["given another cluster", text.replace("clusterUid: uid-east", "clusterUid: uid-west"), "changed on the way"],
    [
      "given another CA",
      text.replace(/ {2}-----BEGIN[\s\S]*END CERTIFICATE-----/, indented(otherCa.trimEnd())),
      "changed on the way",
    ],
    ["stripped of its UID", text.replace(/clusterUid: .*\n/, ""), "lacks clusterUid"],
    ["bent out of shape", text.replace("seeds:", "seeds: ["), "cannot be read"],
  ])("%s", (_, damaged, message) => {
    expect(damaged).not.toBe(text);
    expect(() => parsePairing(damaged)).toThrow(message);
  });
});

test("it becomes the object of either side", () => {
  expect(locationOf(pairing, "west")).toEqual({
    apiVersion: "longshore.dev/v1",
    kind: "MigrationLocation",
    metadata: { name: "west" },
    spec: pairing,
  });
  const source = sourceOf(pairing, "east", "10Ti");
  expect(source.spec).toEqual({ ...cluster, caBundle, quota: { bytes: "10Ti" } });
  expect(sourceOf(pairing, "east").spec).not.toHaveProperty("quota");
  expect(() => locationOf({ ...pairing, seeds: [] }, "west")).toThrow("--seeds");
});

test("what it is called and what it looks like can be compared by people", () => {
  expect(fingerprints(pairing)).toEqual([expect.stringMatching(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/)]);
  expect(parse(text)).toMatchObject(cluster);
});

function indented(pem: string): string {
  return pem.replaceAll(/^/gm, "  ");
}
