// A proxy in front of a real API server that records what is asked of it, as RBAC names it: verb, group, resource. It presents
// a bearer token for everybody who comes.
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import { request as secureRequest } from "node:https";
import type { AddressInfo } from "node:net";

export interface RecordingProxy {
  /** http://127.0.0.1:port */
  readonly server: string;
  /** `patch longshore.dev migrationjobs/status`, once each. */
  readonly seen: ReadonlySet<string>;
  /** What the API server forbade, with its words. */
  readonly forbidden: ReadonlySet<string>;
  /** What it refused as invalid, with its words: each is a bug of whoever wrote it. */
  readonly invalid: ReadonlySet<string>;
  close(): Promise<void>;
}

export async function openRecordingProxy(upstream: {
  readonly server: string;
  readonly caFile: string;
  readonly token: string;
}): Promise<RecordingProxy> {
  const seen = new Set<string>();
  const refused = { 403: new Set<string>(), 422: new Set<string>() };
  const ca = readFileSync(upstream.caFile);
  const server = createServer((asked, answer) => {
    for (const what of rbacOf(asked)) seen.add(what);
    const { method } = asked;
    const headers = {
      ...asked.headers,
      host: new URL(upstream.server).host,
      authorization: `Bearer ${upstream.token}`,
    };
    const onward = secureRequest(new URL(asked.url ?? "/", upstream.server), { method, headers, ca }, (response) => {
      const status = response.statusCode ?? 502;
      answer.writeHead(status, response.headers);
      response.pipe(answer);
      if (status === 403 || status === 422) record(response, `${method} ${asked.url}`, refused[status]);
    });
    onward.once("error", () => answer.destroy());
    answer.once("close", () => onward.destroy());
    asked.pipe(onward);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    forbidden: refused[403],
    invalid: refused[422],
    close: () => closed(server),
  };
}

function closed(server: ReturnType<typeof createServer>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

function record(response: IncomingMessage, what: string, into: Set<string>): void {
  let text = "";
  response.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  response.once("end", () => into.add(`${what}: ${text}`));
}

/** What a request needs, as RBAC names it. A server-side apply needs the right to create as well. */
function rbacOf({ method, url = "", headers }: IncomingMessage): string[] {
  const { pathname, searchParams } = new URL(url, "http://api");
  const [, core, named, rest] = /^\/(?:api\/(v1)|apis\/([^/]+)\/[^/]+)\/(.+)$/.exec(pathname) ?? [];
  if (rest === undefined) return [];
  const parts = rest.replace(/^namespaces\/[^/]+\//, "").split("/");
  const [resource, name, subresource] = parts;
  const what = `${core === undefined ? named : "core"} ${subresource === undefined ? resource : `${resource}/${subresource}`}`;
  if (method === "GET") {
    if (searchParams.get("watch") === "true" || searchParams.get("watch") === "1") return [`watch ${what}`];
    return [name === undefined ? `list ${what}` : `get ${what}`];
  }
  const verbs = { POST: "create", PUT: "update", PATCH: "patch", DELETE: "delete" } as const;
  const verb = verbs[method as keyof typeof verbs] ?? String(method);
  const isApply = headers["content-type"]?.startsWith("application/apply-patch") === true;
  return isApply ? [`patch ${what}`, `create ${what}`] : [`${verb} ${what}`];
}
