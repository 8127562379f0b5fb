import { afterAll, beforeAll } from "@jest/globals";
import { fakeWorld } from "../fakes/fake-world.ts";
import { secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";
import { agentApiContract } from "./agent-api.ts";

let pki: TestPki;

beforeAll(async () => {
  pki = await testPki("east");
});

afterAll(() => pki.remove());

agentApiContract("over HTTP with mutual TLS", async () => {
  const agent = await secureAgent(pki);
  return fakeWorld(agent.fake, await agent.client("operator"), () => agent.close());
});
