// Runs inside an agent under test, before everything else of it: puts gates into the calls between agents, at which a call
// waits until the test lets it go on. The agent itself is the real one, down to its command line; only the import of the
// engine is led to gated-engine.ts, which opens the real engine between doors that can be held.
import { registerHooks } from "node:module";

registerHooks({
  resolve(specifier, context, next) {
    const isEngine = specifier === "../engine/engine.ts" && context.parentURL?.endsWith("/src/agent/agent.ts") === true;
    return isEngine ? next(new URL("gated-engine.ts", import.meta.url).href, context) : next(specifier, context);
  },
});
