// TCP ports for servers that cannot be told to pick one themselves.

import { randomInt } from "node:crypto";
import { createServer } from "node:net";

// Below the range that Linux takes the ports of outgoing connections from: a port found free there would be in danger
// until its server listens, and again whenever that server is restarted.
const lowest = 20_000;
const highest = 32_000;
const triesMax = 200;
const given = new Set<number>();

/** A port of 127.0.0.1 that nothing listens on, never given twice by one process. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < triesMax; tries++) {
    const port = randomInt(lowest, highest);
    if (given.has(port) || !(await canListen(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no free port between ${lowest} and ${highest} in ${triesMax} tries`);
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}
