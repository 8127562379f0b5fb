import { engineWorld } from "../fakes/engine-world.ts";
import { agentApiContract } from "./agent-api.ts";

agentApiContract("the engine", engineWorld);
