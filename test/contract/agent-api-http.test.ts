import { afterAll, beforeAll } from "@jest/globals";
import { fakeWorld } from "../fakes/fake-world.ts";
import { type SecureAgent, secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";
import { agentApiContract } from "./agent-api.ts";

let pki: TestPki;
let agent: SecureAgent;

beforeAll(async () => {
  pki = await testPki("east");
  agent = await secureAgent(pki);
});

afterAll(async () => {
  await agent.close();
  await pki.remove();
});

agentApiContract("over HTTP with mutual TLS", async () => {
  agent.reset();
  const client = await agent.client("operator");
  return fakeWorld(agent.fake, client, () => client.close());
});
