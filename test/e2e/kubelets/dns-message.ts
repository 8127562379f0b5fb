// As much of DNS as pods ask of a cluster: one question in a datagram, and IPv4 addresses in return.

export interface Question {
  readonly id: number;
  /** Lower case, without the dot at the end. */
  readonly name: string;
  readonly type: number;
  /** As it was asked, to be repeated in the reply. */
  readonly bytes: Buffer;
  readonly isRecursionDesired: boolean;
}

export type Reply =
  /** None for a name that exists, with nothing of the type that was asked for. */
  | { readonly kind: "addresses"; readonly addresses: readonly string[] }
  | { readonly kind: "noSuchName" }
  /** Nobody knows now; the asker tries again. */
  | { readonly kind: "failure" };

export const typeA = 1;

const headerBytes = 12;
/** What fits a datagram beside the longest question. */
const addressesMax = 15;
const ttlSeconds = 1;

/** `undefined` for what is no question that we know how to read. */
export function parseQuestion(message: Buffer): Question | undefined {
  if (message.length < headerBytes) return undefined;
  const flags = message.readUInt16BE(2);
  const isQuery = (flags & 0xf800) === 0;
  if (!isQuery || message.readUInt16BE(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = headerBytes;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63 || at + 1 + length > message.length) return undefined;
    at += 1;
    if (length === 0) break;
    labels.push(message.toString("latin1", at, at + length).toLowerCase());
    at += length;
  }
  if (at + 4 > message.length) return undefined;
  return {
    id: message.readUInt16BE(0),
    name: labels.join("."),
    type: message.readUInt16BE(at),
    bytes: message.subarray(headerBytes, at + 4),
    isRecursionDesired: (flags & 0x0100) !== 0,
  };
}

export function renderReply(question: Question, reply: Reply): Buffer {
  const addresses = reply.kind === "addresses" ? reply.addresses.slice(0, addressesMax) : [];
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(question.id, 0);
  const codes = { addresses: 0, noSuchName: 3, failure: 2 } as const;
  // A reply, authoritative, from somebody who would ask others.
  header.writeUInt16BE(0x8480 | (question.isRecursionDesired ? 0x0100 : 0) | codes[reply.kind], 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(addresses.length, 6);
  return Buffer.concat([header, question.bytes, ...addresses.map(renderAddress)]);
}

/** A record for the name that was asked for, which stands right behind the header. */
function renderAddress(address: string): Buffer {
  const record = Buffer.alloc(16);
  record.writeUInt16BE(0xc000 | headerBytes, 0);
  record.writeUInt16BE(typeA, 2);
  record.writeUInt16BE(1, 4);
  record.writeUInt32BE(ttlSeconds, 6);
  record.writeUInt16BE(4, 10);
  for (const [index, part] of address.split(".").entries()) record.writeUInt8(Number(part), 12 + index);
  return record;
}
