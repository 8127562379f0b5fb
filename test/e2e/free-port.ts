// TCP ports for servers that cannot be told to pick one themselves.

import { randomInt } from "node:crypto";
import { createServer } from "node:net";

// Below the range that Linux takes the ports of outgoing connections from: a port found free there would be in danger
// until its server listens, and again whenever that server is restarted.
const lowest = 20_000;
const highest = 32_000;
/** Each of Jest's workers has every eighth for itself: what one has been given, and does not listen on yet, no other one is given. */
const share = 8;
const own = Number(process.env.JEST_WORKER_ID ?? 0) % share;
const triesMax = 200;
const given = new Set<number>();

/** A port of 127.0.0.1 that nothing listens on, never given twice by one process, nor to two of Jest's workers. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < triesMax; tries++) {
    const port = share * randomInt(lowest / share, highest / share) + own;
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
