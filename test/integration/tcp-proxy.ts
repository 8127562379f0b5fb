// A way to an API server that can be cut, closed or made silent, and that counts who comes.
import { connect, createServer, type Socket } from "node:net";

export interface TcpProxy {
  readonly port: number;
  /** Connections since the start, refused ones included. */
  readonly connections: number;
  /** Breaks what is connected; new connections pass. */
  cut(): void;
  /** Breaks what is connected, and from now on everything new, until {@link open}. */
  shut(): void;
  /** From now on nothing passes, and nobody is told: as when a machine loses its power. Lasts until {@link open}. */
  silence(): void;
  open(): void;
  close(): Promise<void>;
}

export async function openTcpProxy(targetPort: number): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  let state: "open" | "shut" | "silent" = "open";
  let connections = 0;
  const join = (from: Socket, to: Socket) => {
    sockets.add(from);
    from.on("error", () => to.destroy());
    from.on("close", () => {
      sockets.delete(from);
      to.destroy();
    });
    from.on("data", (bytes) => {
      if (state !== "silent") to.write(bytes);
    });
  };
  const server = createServer((client) => {
    connections++;
    if (state === "shut") {
      client.destroy();
      return;
    }
    const upstream = connect(targetPort, "127.0.0.1");
    join(client, upstream);
    join(upstream, client);
  });
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    port: address.port,
    get connections() {
      return connections;
    },
    cut,
    shut() {
      state = "shut";
      cut();
    },
    silence() {
      state = "silent";
    },
    open() {
      // What was said into the silence is lost, so the connections are of no use.
      if (state === "silent") cut();
      state = "open";
    },
    close: () =>
      new Promise((resolve) => {
        cut();
        server.close(() => resolve());
      }),
  };
}
