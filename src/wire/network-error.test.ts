import { describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../domain/errors.ts";
import { networkError } from "./network-error.ts";

const failure = (code: string, more: object = {}) => Object.assign(new Error(code), { code }, more);

describe("a failed request is", () => {
  test.each([
    // what Node.js or undici says, what it is to us
    [failure("ECONNREFUSED"), "Unreachable"],
    [failure("EHOSTUNREACH"), "Unreachable"],
    [failure("ENOTFOUND"), "Unreachable"],
    [failure("EAI_AGAIN"), "Unreachable"],
    [failure("ERR_INVALID_URL"), "Unreachable"],
    [failure("ERR_SOCKET_BAD_PORT"), "Unreachable"],
    [failure("UND_ERR_CONNECT_TIMEOUT"), "Unreachable"],
    [new AggregateError([failure("ECONNREFUSED"), failure("ENETUNREACH")]), "Unreachable"],
    [failure("UND_ERR_SOCKET", { cause: failure("ECONNREFUSED") }), "StreamTorn"],
    [new TypeError("fetch failed", { cause: failure("ECONNREFUSED") }), "Unreachable"],
    [
      Object.assign(new Error("Client network socket disconnected before secure TLS connection was established"), {
        code: "ECONNRESET",
      }),
      "Unreachable",
    ],
    [failure("SELF_SIGNED_CERT_IN_CHAIN"), "Untrusted"],
    [failure("DEPTH_ZERO_SELF_SIGNED_CERT"), "Untrusted"],
    [failure("UNABLE_TO_VERIFY_LEAF_SIGNATURE"), "Untrusted"],
    [failure("CERT_HAS_EXPIRED"), "Untrusted"],
    [failure("ERR_SSL_WRONG_VERSION_NUMBER"), "Untrusted"],
    [failure("ECONNRESET"), "StreamTorn"],
    [failure("UND_ERR_SOCKET"), "StreamTorn"],
    [failure("UND_ERR_HEADERS_TIMEOUT"), "Timeout"],
    [failure("UND_ERR_BODY_TIMEOUT"), "Timeout"],
  ])("%s: %s", (error, code) => {
    expect(networkError(error, "10.0.0.1:7420")).toMatchObject({
      code,
      message: expect.stringContaining("10.0.0.1:7420"),
    });
  });
});

test("what is ours or unknown passes through as it is", () => {
  const ours = new LongshoreError("DiskFull", "full");
  const unknown = new RangeError("a defect");
  expect(networkError(ours, "x")).toBe(ours);
  expect(networkError(unknown, "x")).toBe(unknown);
  expect(networkError("text", "x")).toBe("text");
});
