// The port that lanes are dialled at: accepts connections, up to a limit, and knows those there are.
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { type Address, renderAddress } from "../domain/address.ts";
import { LongshoreError } from "../domain/errors.ts";

export interface LaneListenerOptions {
  /** Port 0 takes a free one. */
  readonly listen: Address;
  /** What peers dial when it is not the host listened on. */
  readonly advertiseHost?: string | undefined;
  readonly connectionsMax: number;
  /** Gets each connection, paused, with nothing read yet. */
  connect(socket: Socket): Connection;
  /** A connection could not be accepted. */
  onError(error: LongshoreError): void;
}

export interface Connection {
  /** Never rejects. */
  readonly closed: Promise<void>;
  /** Ends it at once. */
  stop(): void;
}

export class LaneListener {
  readonly #options: LaneListenerOptions;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();
  /** What peers dial; known once it listens, and remembered when it does not any more. */
  address = "";

  constructor(options: LaneListenerOptions) {
    this.#options = options;
    this.#server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
    this.#server.on("connection", (socket) => this.#onConnection(socket));
  }

  /** Resolves when the port is open. */
  async listen(): Promise<void> {
    this.#server.listen(this.#options.listen);
    await once(this.#server, "listening");
    // Such as too many open files: this connection is lost, the server is not.
    this.#server.on("error", (error) => this.#report(error));
    const { address, port } = this.#server.address() as AddressInfo;
    this.address = renderAddress({ host: this.#options.advertiseHost ?? address, port });
  }

  /** Closes the port and all connections; resolves when they are gone. */
  async close(): Promise<void> {
    const closed = this.#server.listening ? once(this.#server, "close") : Promise.resolve();
    this.#server.close();
    for (const connection of this.#connections) connection.stop();
    await Promise.all([closed, ...[...this.#connections].map((connection) => connection.closed)]);
  }

  #onConnection(socket: Socket): void {
    socket.on("error", () => {});
    if (this.#connections.size >= this.#options.connectionsMax) return void socket.destroy();
    try {
      const connection = this.#options.connect(socket);
      this.#connections.add(connection);
      void connection.closed.then(() => this.#connections.delete(connection));
    } catch (error) {
      this.#report(error);
    }
  }

  #report(cause: unknown): void {
    this.#options.onError(new LongshoreError("Unreachable", "lane: a connection could not be accepted", { cause }));
  }
}
