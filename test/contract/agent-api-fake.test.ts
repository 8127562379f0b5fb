import { FakeAgent } from "../fakes/fake-agent.ts";
import { fakeWorld } from "../fakes/fake-world.ts";
import { agentApiContract } from "./agent-api.ts";

agentApiContract("the fake itself", async () => fakeWorld(new FakeAgent()));
