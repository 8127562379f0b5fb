import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { systemClock } from "../base/clock.ts";
import { type Metrics, openMetrics } from "../base/metrics.ts";
import { type Api, type ApiLimits, openApi } from "./api.ts";
import { type KubeconfigSource, loadKubeconfig, openConnection } from "./connection.ts";
import { KubeError } from "./errors.ts";

let server: Server;
let connections: number;
let seen: { method: string; url: string; headers: IncomingMessage["headers"]; body: string }[];
let answer: (request: IncomingMessage, response: ServerResponse) => void;
let apis: Api[];
let metrics: Metrics;

beforeEach(async () => {
  connections = 0;
  seen = [];
  apis = [];
  metrics = openMetrics();
  answer = (_request, response) => response.end("{}");
  // A busy machine may take longer from one request to the next than a server usually waits.
  server = createServer({ keepAliveTimeout: 600_000 }, (request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
      answer(request, response);
    });
  });
  server.on("connection", () => connections++);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});

afterEach(async () => {
  for (const api of apis) api.close();
  server.closeAllConnections();
  server.close();
  await once(server, "close");
});

function kubeconfig(user: object = { token: "secret-1" }): KubeconfigSource {
  const { port } = server.address() as AddressInfo;
  const cluster = { server: `http://127.0.0.1:${port}/prefix`, "insecure-skip-tls-verify": true };
  const yaml = JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    clusters: [{ name: "test", cluster }],
    users: [{ name: "test", user }],
  });
  return { kind: "text", yaml };
}

function open(limits?: Partial<ApiLimits>, source = kubeconfig()): Api {
  const api = openApi(openConnection(loadKubeconfig(source), systemClock), metrics, limits);
  apis.push(api);
  return api;
}

async function failureOf(promise: Promise<unknown>): Promise<KubeError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof KubeError) return error;
  throw new Error(`not a KubeError: ${String(error)}`);
}

async function linesOf(stream: AsyncIterable<unknown>): Promise<unknown[]> {
  const lines: unknown[] = [];
  for await (const line of stream) lines.push(line);
  return lines;
}

describe("a request", () => {
  test("carries path, query, credentials, body and its type, and gives the parsed answer", async () => {
    answer = (_request, response) => response.end('{"kind":"Thing"}');
    const request = { method: "PATCH", path: "/apis/things/a b", query: { force: "true", none: undefined } } as const;
    const contentType = "application/merge-patch+json";
    expect(await open().request({ ...request, contentType, body: { a: "ä" } })).toEqual({ kind: "Thing" });
    expect(seen).toMatchObject([
      {
        method: "PATCH",
        url: "/prefix/apis/things/a%20b?force=true",
        headers: { authorization: "Bearer secret-1", "content-type": contentType, "content-length": "10" },
        body: '{"a":"ä"}',
      },
    ]);
  });

  test("uses the connection of the one before", async () => {
    const api = open();
    for (let index = 0; index < 5; index++) await api.request({ method: "GET", path: "/a" });
    expect(connections).toBe(1);
  });

  test.each([
    // status, code
    [400, "Invalid"],
    [401, "Forbidden"],
    [403, "Forbidden"],
    [404, "NotFound"],
    [409, "Conflict"],
    [410, "Expired"],
    [422, "Invalid"],
    [429, "Throttled"],
    [500, "Unreachable"],
    [503, "Unreachable"],
  ])("that is answered with %d fails as %s", async (status, code) => {
    answer = (_request, response) => response.writeHead(status).end("no JSON, from a proxy");
    const error = await failureOf(open().request({ method: "GET", path: "/a" }));
    expect(error).toMatchObject({ code, message: `GET /a: ${status} no JSON, from a proxy` });
    expect(await metrics.render()).toContain(`longshore_kube_requests_total{method="GET",code="${code}"} 1`);
  });

  test("that fails says the server's message and reason, and how long it asked to wait", async () => {
    answer = (_request, response) => {
      const status = { kind: "Status", message: "slow down", reason: "TooManyRequests" };
      response.writeHead(429, { "retry-after": "7" }).end(JSON.stringify(status));
    };
    const error = await failureOf(open().request({ method: "GET", path: "/a" }));
    expect(error).toMatchObject({ message: "GET /a: 429 slow down", reason: "TooManyRequests", retryAfterMs: 7_000 });
  });

  test("for an object of another UID is a conflict, however the server calls it", async () => {
    const message = 'Thing.test.dev "a" is invalid: metadata.uid: Invalid value: "x": field is immutable';
    answer = (_request, response) => response.writeHead(422).end(JSON.stringify({ kind: "Status", message }));
    expect(await failureOf(open().request({ method: "GET", path: "/a" }))).toMatchObject({ code: "Conflict" });
  });

  test("that nobody answers fails as Unreachable after its time", async () => {
    answer = () => undefined;
    const error = await failureOf(open({ requestTimeoutMs: 50 }).request({ method: "GET", path: "/a" }));
    expect(error).toMatchObject({ code: "Unreachable" });
  });

  test("whose answer stops halfway, or is no JSON, or is too long, fails as Unreachable", async () => {
    const api = open({ bodyBytesMax: 100 });
    answer = (_request, response) => {
      response.writeHead(200, { "content-length": "50" }).write("{");
      response.destroy();
    };
    expect(await failureOf(api.request({ method: "GET", path: "/a" }))).toMatchObject({ code: "Unreachable" });
    answer = (_request, response) => response.end("<html>");
    expect(await failureOf(api.request({ method: "GET", path: "/a" }))).toMatchObject({ code: "Unreachable" });
    answer = (_request, response) => response.end(JSON.stringify({ a: "x".repeat(100) }));
    const tooLong = await failureOf(api.request({ method: "GET", path: "/a" }));
    expect(tooLong.message).toContain("more than 100 bytes");
  });

  test("to a server that is not there fails as Unreachable", async () => {
    const api = open();
    server.close();
    await once(server, "close");
    expect(await failureOf(api.request({ method: "GET", path: "/a" }))).toMatchObject({ code: "Unreachable" });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
  });

  test("that is aborted rejects with the signal's reason", async () => {
    const stop = new AbortController();
    answer = () => stop.abort(new Error("enough"));
    await expect(open().request({ method: "GET", path: "/a", signal: stop.signal })).rejects.toThrow("enough");
  });
});

describe("a watch", () => {
  test("gives line by line, wherever the chunks are cut", async () => {
    const text = '{"type":"ADDED","object":{"name":"ä€𝄞"}}\n\n{"type":"BOOKMARK","object":{}}\n';
    answer = (_request, response) => {
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; at++) response.write(bytes.subarray(at, at + 1));
      response.end();
    };
    expect(await linesOf(open().watch({ path: "/a", query: { resourceVersion: "5" } }))).toEqual([
      { type: "ADDED", object: { name: "ä€𝄞" } },
      { type: "BOOKMARK", object: {} },
    ]);
    expect(seen[0]?.url).toBe("/prefix/a?resourceVersion=5&watch=1");
  });

  test("that is refused fails with the answer's code", async () => {
    answer = (_request, response) => response.writeHead(410).end('{"message":"too old"}');
    expect(await failureOf(linesOf(open().watch({ path: "/a" })))).toMatchObject({ code: "Expired" });
  });

  test("that breaks, sends no JSON, or has too long a line, fails as Unreachable", async () => {
    const api = open({ bodyBytesMax: 100 });
    answer = (_request, response) => {
      response.write('{"type":"ADDED","object":{}}\n', () => response.destroy());
    };
    expect(await failureOf(linesOf(api.watch({ path: "/a" })))).toMatchObject({ code: "Unreachable" });
    answer = (_request, response) => response.end("nonsense\n");
    expect(await failureOf(linesOf(api.watch({ path: "/a" })))).toMatchObject({ code: "Unreachable" });
    answer = (_request, response) => void response.write("x".repeat(200));
    expect(await failureOf(linesOf(api.watch({ path: "/a" })))).toMatchObject({ code: "Unreachable" });
  });

  test("that is silent for too long fails as Unreachable", async () => {
    answer = (_request, response) => void response.writeHead(200).flushHeaders();
    const error = await failureOf(linesOf(open({ watchSilenceMsMax: 50 }).watch({ path: "/a" })));
    expect(error).toMatchObject({ code: "Unreachable" });
  });

  test("that is aborted rejects with the signal's reason, and its connection is closed", async () => {
    const stop = new AbortController();
    const closed = Promise.withResolvers<void>();
    answer = (_request, response) => {
      response.on("close", () => closed.resolve());
      response.write('{"type":"ADDED","object":{}}\n', () => stop.abort(new Error("enough")));
    };
    await expect(linesOf(open().watch({ path: "/a", signal: stop.signal }))).rejects.toThrow("enough");
    await closed.promise;
  });

  test("that its reader leaves is closed", async () => {
    const closed = Promise.withResolvers<void>();
    answer = (_request, response) => {
      response.on("close", () => closed.resolve());
      response.write('{"type":"ADDED","object":{}}\n');
    };
    for await (const line of open().watch({ path: "/a" })) {
      expect(line.type).toBe("ADDED");
      break;
    }
    await closed.promise;
  });
});

describe("credentials", () => {
  test("that have changed are used as soon as the server has refused the old ones", async () => {
    const folder = mkdtempSync(join(tmpdir(), "longshore-token-"));
    const script = join(folder, "token.sh");
    const exec = (token: string) => {
      const status = { token, expirationTimestamp: "2020-01-01T00:00:00Z" };
      const credential = { apiVersion: "client.authentication.k8s.io/v1", kind: "ExecCredential", status };
      writeFileSync(script, `#!/bin/sh\necho '${JSON.stringify(credential)}'\n`, { mode: 0o700 });
    };
    exec("old");
    answer = ({ headers }, response) => {
      const isGood = headers.authorization === "Bearer new";
      response.writeHead(isGood ? 200 : 401).end("{}");
    };
    const user = { exec: { apiVersion: "client.authentication.k8s.io/v1", command: script, interactiveMode: "Never" } };
    const api = open({}, kubeconfig(user));
    expect(await failureOf(api.request({ method: "GET", path: "/a" }))).toMatchObject({ code: "Forbidden" });
    exec("new");
    expect(await api.request({ method: "GET", path: "/a" })).toEqual({});
    rmSync(folder, { recursive: true });
  });
});
