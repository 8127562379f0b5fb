// Takes the place of src/engine/engine.ts in an agent under test: the real engine, with a gate before and after every call
// that it makes to other agents and every call that it answers to them, and with its journal open to the test's questions.
import { type Engine, openEngine as openRealEngine } from "../../../src/engine/engine.ts";
import type { EngineOptions } from "../../../src/engine/engine-options.ts";
import type { Journal } from "../../../src/engine/journal.ts";
import type { CallSide, FromAgent, Gate, ToAgent } from "./gate-messages.ts";

export type { Engine };

export async function openEngine(options: EngineOptions): Promise<Engine> {
  const engine = await openRealEngine({
    ...options,
    // A getter there: the port is known later.
    addresses: options.addresses,
    connect(location) {
      const connection = options.connect(location);
      return {
        ...connection,
        api: gated("calling", "peer", connection.api),
        at: (home) => gated("calling", "peer", connection.at(home)),
      };
    },
    connectMember(address) {
      const connection = options.connectMember(address);
      return { ...connection, api: gated("calling", "member", connection.api) };
    },
    openJournal(folder) {
      journal = options.openJournal(folder);
      return journal;
    },
  });
  return {
    ...engine,
    member: gated("serving", "member", engine.member),
    peer: (clusterUid, verifiedUnder) => gated("serving", "peer", engine.peer(clusterUid, verifiedUnder)),
  };
}

let journal: Journal | undefined;
const gates = new Map<string, { readonly gate: Gate; readonly opened: Promise<void>; open(): void }>();

/** The same interface, each call of which passes the gates that are closed for it. */
function gated<T extends object>(side: CallSide, api: "peer" | "member", inner: T): T {
  return new Proxy(inner, {
    get(target, name, receiver) {
      const value = Reflect.get(target, name, receiver);
      if (typeof value !== "function" || name === "close") return value;
      return (...parameters: unknown[]) => {
        const call = { side, name: `${api}.${String(name)}`, text: JSON.stringify(parameters) };
        return passing(call, () => value.apply(target, parameters));
      };
    },
  });
}

interface Call {
  readonly side: CallSide;
  readonly name: string;
  readonly text: string;
}

async function passing<T>(call: Call, work: () => Promise<T>): Promise<T> {
  const before = await held(call, "before");
  try {
    const result = await work();
    for (const id of before) tell({ kind: "answered", id, call: call.text, code: null });
    await held(call, "after");
    return result;
  } catch (error) {
    for (const id of before) tell({ kind: "answered", id, call: call.text, code: codeOf(error) });
    throw error;
  }
}

/** Waits at every gate that is closed for the call; their ids. */
async function held({ side, name, text }: Call, moment: Gate["moment"]): Promise<string[]> {
  const passed: string[] = [];
  for (const { gate, opened } of [...gates.values()]) {
    const isFor = gate.side === side && gate.call === name && gate.moment === moment;
    if (!isFor || !text.includes(gate.containing)) continue;
    tell({ kind: "held", id: gate.id, call: text });
    await opened;
    passed.push(gate.id);
  }
  return passed;
}

function codeOf(error: unknown): string {
  return typeof error === "object" && error !== null && "code" in error ? String(error.code) : String(error);
}

function tell(message: FromAgent): void {
  if (process.connected) process.send?.(message);
}

function hear(message: ToAgent): void {
  switch (message.kind) {
    case "close": {
      const { promise, resolve } = Promise.withResolvers<void>();
      gates.set(message.gate.id, { gate: message.gate, opened: promise, open: resolve });
      tell({ kind: "done", question: message.question, rows: [] });
      break;
    }
    case "open":
      gates.get(message.id)?.open();
      gates.delete(message.id);
      break;
    case "rows":
      tell({ kind: "done", question: message.question, ...rowsOf(message) });
  }
}

function rowsOf({ sql, values }: { sql: string; values: readonly (string | number)[] }) {
  try {
    return { rows: journal?.all<object>(sql, ...values) ?? [] };
  } catch (error) {
    return { rows: [], problem: String(error) };
  }
}

process.on("message", hear);
// The agent ends when it has nothing to do, as without a test.
process.channel?.unref();
