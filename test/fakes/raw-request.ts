// A request as anybody could send it: any bytes, any certificate or none, no client library in between.
import { request } from "node:https";

export interface RawRequest {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
  /** What to show as client certificate; nothing unless given. */
  readonly show?: { readonly cert: string; readonly key: string };
}

export interface RawAnswer {
  readonly status: number;
  readonly type: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** The body as JSON, `undefined` when it is none. */
  readonly json: Readonly<Record<string, unknown>> | undefined;
}

/** Sends one request over a connection of its own. */
export function rawRequest(
  address: string,
  { method = "GET", path, headers = {}, body, show }: RawRequest,
): Promise<RawAnswer> {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const target = { host, port, method, path, headers, agent: false, rejectUnauthorized: false, ...show };
    const sent = request(target, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(parts).toString("utf8");
        const type = String(response.headers["content-type"] ?? "");
        const json = type.includes("json") && text !== "" ? JSON.parse(text) : undefined;
        resolve({ status: response.statusCode ?? 0, type, headers: response.headers, text, json });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}
