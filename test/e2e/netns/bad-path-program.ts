// Runs in a namespace between agents: passes on connections, late, and breaks one now and then with what was on its way. The
// only parameter is JSON: see BadPath.
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { seededDice } from "../../../src/base/dice.ts";

export interface BadPath {
  readonly routes: readonly { readonly listen: number; readonly address: string; readonly port: number }[];
  /** Each piece of data is late by this, in either direction. */
  readonly delayMs: number;
  /** With so many of a hundred pieces the connection breaks. */
  readonly lossPercent: number;
  readonly seed: number;
}

const { routes, delayMs, lossPercent, seed } = JSON.parse(process.argv[2] ?? "{}") as BadPath;
const dice = seededDice(seed);

async function pass(from: Socket, to: Socket): Promise<void> {
  try {
    for await (const bytes of from) {
      await sleep(delayMs);
      if (dice.random() * 100 < lossPercent) break;
      if (!to.write(bytes)) await new Promise((resolve) => to.once("drain", resolve).once("close", resolve));
    }
  } catch {
    // Broken at one end: so it is at the other.
  }
  from.destroy();
  to.destroy();
}

let waiting = routes.length;
for (const { listen, address, port } of routes) {
  const server = createServer((client) => {
    const upstream = connect(port, address);
    for (const socket of [client, upstream]) socket.on("error", () => socket.destroy());
    void pass(client, upstream);
    void pass(upstream, client);
  });
  server.listen(listen, () => {
    if (--waiting === 0) process.stdout.write("ready\n");
  });
}
