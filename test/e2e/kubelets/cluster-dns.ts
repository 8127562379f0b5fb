// A cluster's DNS server: answers for Services by what the API server says of them at the time.
import { createSocket, type RemoteInfo } from "node:dgram";
import { once } from "node:events";
import type { KubeClient } from "../kube-client.ts";
import { addressesOf, type Endpoints, type NamedService } from "./cluster-names.ts";
import { parseQuestion, type Question, type Reply, renderReply, typeA } from "./dns-message.ts";

export interface ClusterDns {
  /** `ADDRESS:PORT`, UDP. */
  readonly address: string;
  close(): Promise<void>;
}

/** For so long what was read of the cluster is good enough. */
const freshMs = 1_000;

interface Seen {
  readonly atMs: number;
  readonly services: readonly NamedService[];
  readonly slices: readonly Endpoints[];
}

/** Listens at an address of this machine, on a port of its own. */
export async function serveClusterDns(address: string, kube: Pick<KubeClient, "list">): Promise<ClusterDns> {
  const socket = createSocket("udp4");
  let isOpen = true;
  const observe = observer(kube);
  const answer = async (question: Question, peer: RemoteInfo) => {
    const reply = await replyTo(question, observe);
    if (isOpen) socket.send(renderReply(question, reply), peer.port, peer.address);
  };
  socket.on("message", (message, peer) => {
    const question = parseQuestion(message);
    if (question !== undefined) void answer(question, peer);
  });
  socket.bind({ address, port: 0 });
  await once(socket, "listening");
  return {
    address: `${address}:${socket.address().port}`,
    async close() {
      if (!isOpen) return;
      isOpen = false;
      socket.close();
      await once(socket, "close");
    },
  };
}

async function replyTo({ name, type }: Question, observe: () => Promise<Seen>): Promise<Reply> {
  try {
    const { services, slices } = await observe();
    const addresses = addressesOf(name, services, slices);
    if (addresses === undefined) return { kind: "noSuchName" };
    return { kind: "addresses", addresses: type === typeA ? addresses : [] };
  } catch {
    // The API server is away, or on its way; who asks is told so, and asks again.
    return { kind: "failure" };
  }
}

/** Reads the cluster at most once in {@link freshMs}, for however many questions. */
function observer(kube: Pick<KubeClient, "list">): () => Promise<Seen> {
  let seen: Seen | undefined;
  let reading: Promise<Seen> | undefined;
  const read = async (): Promise<Seen> => {
    try {
      const [services, slices] = await Promise.all([kube.list("Service"), kube.list("EndpointSlice")]);
      seen = { atMs: performance.now(), services, slices: slices as readonly Endpoints[] };
      return seen;
    } finally {
      reading = undefined;
    }
  };
  return async () => {
    if (seen !== undefined && performance.now() - seen.atMs < freshMs) return seen;
    reading ??= read();
    return reading;
  };
}
