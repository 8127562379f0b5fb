// Health, readiness and metrics of a process without an API of its own, over plain HTTP: nothing here is secret.
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Metrics } from "../base/metrics.ts";
import { renderAddress } from "../domain/address.ts";
import type { OperatorPhase } from "../kube/operator.ts";

export interface Probes {
  /** host:port. */
  readonly address: string;
  close(): Promise<void>;
}

/** Of an operator, or `serving` of a process that answers calls. */
type Phase = OperatorPhase | "serving";

export interface ProbeDeps {
  readonly metrics: Metrics;
  readonly phase: () => Phase | Promise<Phase>;
}

const readyPhases: readonly string[] = ["standby", "leading", "serving"];

/** Without a host: at every address of the machine, of either version of IP. */
export interface Listen {
  readonly host?: string;
  readonly port: number;
}

/** Serves /healthz, /readyz and /metrics. A standby is ready: it only waits for its turn. */
export async function openProbes(listen: Listen, deps: ProbeDeps): Promise<Probes> {
  const server = createServer((request, response) => {
    answer(request.url ?? "/", response, deps).catch((error: unknown) => response.destroy(error as Error));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(listen, resolve);
  });
  const { address, port } = server.address() as AddressInfo;
  return {
    address: renderAddress({ host: address, port }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(url: string, response: ServerResponse, deps: ProbeDeps): Promise<void> {
  const { metrics } = deps;
  switch (url.split("?")[0]) {
    case "/healthz": {
      const phase = await deps.phase();
      return text(response, phase === "ended" ? 503 : 200, phase);
    }
    case "/readyz": {
      const phase = await deps.phase();
      return text(response, readyPhases.includes(phase) ? 200 : 503, phase);
    }
    case "/metrics":
      response.setHeader("content-type", metrics.contentType);
      response.end(await metrics.render());
      return;
    default:
      return text(response, 404, "see /healthz, /readyz and /metrics");
  }
}

function text(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(`${body}\n`);
}
