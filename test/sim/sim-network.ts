// Calls between agents, and from operators to agents: messages that are slow, lost, doubled, overtaken or cut off, each way by
// itself. What is carried is copied as JSON would carry it.
import { BugError } from "../../src/base/assert.ts";
import { type ErrorCode, LongshoreError } from "../../src/domain/errors.ts";
import type { MemberConnection, PeerConnection } from "../../src/engine/engine-options.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import type { MemberApi } from "../../src/wire/member.ts";
import type { PeerApi } from "../../src/wire/peer.ts";
import type { LocationSpec, Member } from "../../src/wire/schemas.ts";
import type { Party } from "./faults.ts";
import { Dead, type Host, isProgrammingError, type Process } from "./host.ts";
import type { Owner } from "./timeline.ts";
import type { World } from "./world.ts";

/** Whoever calls: a process of an agent, or an operator. */
export interface Caller {
  readonly party: Party;
  readonly owner: Owner;
  /** Counts the call among the caller's effects; throws when it dies by it. */
  effect(name: string): void;
}

interface Request {
  readonly kind: "peer" | "member" | "agent";
  readonly method: string;
  readonly args: readonly unknown[];
  /** What carries it out at whatever process is there. */
  readonly api: (process: Process) => object;
}

type Outcome = { readonly value: string | undefined } | { readonly code: ErrorCode; readonly message: string };

/** Calls that wait for something else than a disk are given longer. */
const patientMethods = new Set(["order", "store", "putGroupSnapshot"]);
/** A new one for each that waits: one for all would keep whatever waits for it, for as long as the process lives. */
const never = () => new Promise<never>(() => undefined);

/** How many calls under a term are remembered, for an echo of them. */
const pastMax = 40;

export class SimNetwork {
  private readonly world: World;
  private readonly past: { readonly to: Host; readonly request: Request; readonly sent: string }[] = [];

  constructor(world: World) {
    this.world = world;
  }

  connectMember(process: Process, address: string, agentId?: string): MemberConnection {
    const { uid } = process.host.cluster;
    const send = this.sender<MemberApi>(callerOf(process), "member", (target) => {
      if (target.host.cluster.uid !== uid) throw new LongshoreError("Forbidden", "not an agent of this cluster");
      if (agentId !== undefined && target.host.agentId !== agentId)
        throw new LongshoreError("Unreachable", `another agent answers at ${address}`);
      return engineOf(target).member;
    });
    return { api: send(() => this.world.hostAt(address)), close: async () => undefined };
  }

  connect(process: Process, location: LocationSpec): PeerConnection {
    const { uid } = process.host.cluster;
    const api = (target: Process) => {
      const engine = engineOf(target);
      return engine.peer(
        uid,
        engine.consents().map(({ name }) => name),
      );
    };
    const send = this.sender<PeerApi>(callerOf(process), "peer", api);
    const at = (member: Pick<Member, "agentId" | "address">) =>
      this.sender<PeerApi>(callerOf(process), "peer", (target) => {
        if (target.host.agentId === member.agentId) return api(target);
        throw new LongshoreError("Unreachable", `another agent answers at ${member.address}`);
      })(() => this.world.hostAt(member.address));
    return {
      api: anyOf(location.seeds.map((seed) => send(() => this.world.hostAt(seed)))),
      at,
      lanes: { tls: process.lanes.dialer(), kernel: process.lanes.dialer() },
      close: async () => undefined,
    };
  }

  /** The agent's API as an operator reaches it. */
  agent(caller: Caller, host: Host): AgentApi {
    return this.sender<AgentApi>(caller, "agent", (target) => engineOf(target).api)(() => host);
  }

  private sender<T extends object>(caller: Caller, kind: Request["kind"], api: Request["api"]) {
    return (to: () => Host | undefined): T =>
      new Proxy({} as T, {
        get: (_, method: string) =>
          method === "then" ? undefined : (...args: unknown[]) => this.call(caller, to(), { kind, method, args, api }),
      });
  }

  private async call(caller: Caller, to: Host | undefined, request: Request): Promise<unknown> {
    if (caller.owner.isDead) return never();
    const { world } = this;
    const { timeline, faults, chance } = world;
    try {
      caller.effect(`call ${request.kind}.${request.method}`);
    } catch (error) {
      if (error instanceof Dead) return never();
      throw error;
    }
    const sent = JSON.stringify(request.args);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    let isAnswered = false;
    const answer = (outcome: Outcome) => {
      if (isAnswered) return;
      isAnswered = true;
      cancelTimeout();
      if ("code" in outcome) reject(new LongshoreError(outcome.code, outcome.message));
      else resolve(outcome.value === undefined ? undefined : JSON.parse(outcome.value));
    };
    const refuse = (message: string) =>
      timeline.after(faults.latencyMs() + faults.latencyMs(), caller.owner, () =>
        answer({ code: "Unreachable", message }),
      );
    const timeoutMs = patientMethods.has(request.method) ? 25_000 : 5_000;
    const cancelTimeout = timeline.after(timeoutMs, caller.owner, () =>
      answer({ code: "Timeout", message: `${request.method} was not answered within ${timeoutMs} ms` }),
    );
    const replyFrom = (host: Host) => (outcome: Outcome) => {
      if (faults.isLost() || faults.isCut(host, caller.party)) return;
      timeline.after(faults.latencyMs(), caller.owner, () => answer(outcome));
    };
    if (to === undefined) refuse("nobody is there");
    else if (faults.isLost() || faults.isCut(caller.party, to)) {
      // A connection that breaks is noticed; one that falls silent is not.
      if (chance.is(0.5)) refuse("the connection broke");
    } else {
      for (let copy = faults.isDuplicated() ? 2 : 1; copy > 0; copy--) {
        timeline.after(faults.latencyMs(), to, () => {
          if (to.process?.engine === undefined) refuse(`${to.name} does not answer`);
          else void this.serve(to.process, request, sent, replyFrom(to));
        });
      }
    }
    if (to !== undefined) this.echo(to, request, sent);
    return promise;
  }

  /**
   * Calls under terms come again, long after they were made: held up in the network, or sent by whoever was put back to an
   * old image of its disk, under an epoch that was granted again.
   */
  private echo(to: Host, request: Request, sent: string): void {
    const { chance, faults, timeline } = this.world;
    if (!sent.includes('"term":{"epoch"')) return;
    this.past.push({ to, request, sent });
    if (this.past.length > pastMax) this.past.shift();
    if (!faults.isEchoed()) return;
    const past = chance.pick(this.past);
    timeline.after(chance.between(1, 3_000), past.to, () => {
      if (past.to.process?.engine === undefined) return;
      const twin = chance.is(0.5) ? this.world.invariants.twinOf(past.to, past.sent) : past.sent;
      void this.serve(past.to.process, past.request, twin, () => undefined);
    });
  }

  private async serve(target: Process, request: Request, sent: string, reply: (outcome: Outcome) => void) {
    let outcome: Outcome;
    const what = `${request.kind}.${request.method}`;
    try {
      const isCrash = target.effect(`serve ${what}`);
      const args = JSON.parse(sent) as unknown[];
      const seen = this.world.invariants.serving(target, request.method, args);
      const work = (request.api(target) as Record<string, (...args: unknown[]) => Promise<unknown>>)[request.method];
      if (work === undefined) throw new LongshoreError("Unsupported", `${what} is not there`);
      const value = await work(...args);
      if (target.isDead) return;
      seen();
      if (this.world.isTelling)
        this.world.note(
          target.host,
          `served ${what} ${sent.slice(0, 300)} -> ${JSON.stringify(value)?.slice(0, 2000)}`,
        );
      if (isCrash) return target.host.crash(`after serving ${what}`);
      outcome = { value: JSON.stringify(value) };
    } catch (error) {
      if (target.isDead || error instanceof Dead) return;
      if (error instanceof BugError || isProgrammingError(error)) {
        this.world.violated("I0", `${target.host.name}: ${what}: ${(error as Error).stack}`);
      }
      if (this.world.isTelling) this.world.note(target.host, `refused ${what} ${sent.slice(0, 300)}: ${error}`);
      const { code = "Internal", message } = error as { code?: ErrorCode; message: string };
      outcome = { code, message };
    }
    reply(outcome);
  }
}

export function callerOf(process: Process): Caller {
  return { party: process.host, owner: process, effect: (name) => void process.effect(name) };
}

function engineOf(process: Process) {
  if (process.engine === undefined) throw new LongshoreError("Unreachable", "it has just stopped");
  return process.engine;
}

const elsewhere: readonly string[] = ["Unreachable", "Timeout"] satisfies ErrorCode[];

/** Whichever answers first in the order given, as a client with several seeds does. */
function anyOf<T extends object>(apis: readonly T[]): T {
  if (apis.length === 1) return apis[0] as T;
  return new Proxy({} as T, {
    get:
      (_, method: string) =>
      async (...args: unknown[]) => {
        let failure: unknown;
        for (const api of apis) {
          try {
            return await (api as Record<string, (...args: unknown[]) => Promise<unknown>>)[method]?.(...args);
          } catch (error) {
            failure = error;
            if (!elsewhere.includes((error as { code?: string }).code ?? "")) throw error;
          }
        }
        throw failure;
      },
  });
}
