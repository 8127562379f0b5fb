// The fake agent as the contract suite wants it.
import type { AgentApi } from "../../src/wire/agent-api.ts";
import type { AgentWorld } from "../contract/agent-api.ts";
import type { FakeAgent } from "./fake-agent.ts";

const caBundle = "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n";

/** The contract's world on a fake agent; `api` is the fake itself, or what stands in front of it. */
export function fakeWorld(
  fake: FakeAgent,
  api: AgentApi = fake,
  close: () => Promise<void> = async () => {},
): AgentWorld {
  return {
    api,
    location: { clusterName: "west", seeds: ["127.0.0.1:7420"], caBundle },
    source: { clusterName: "east", caBundle, quotaBytes: 2 ** 40 },
    succeedJob: async (name) => fake.succeedJob(name),
    arrive: async () => fake.arrive("mv-1", { source: "east" }).name,
    freeze: async (name) => fake.freeze(name),
    commit: async (name) => void fake.commit(name),
    write: async (volume, offset, length) => fake.write(volume, offset, length),
    discard: async (volume, offset, length) => fake.discard(volume, offset, length),
    async attach(volume) {
      fake.attached.set(volume, "/dev/loop7");
      return async () => void fake.attached.delete(volume);
    },
    outwaitClones: () => fake.outwaitClones(),
    close,
  };
}
