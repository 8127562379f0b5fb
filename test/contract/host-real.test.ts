import { openRealHost } from "../fakes/real-host.ts";
import { needs } from "../needs.ts";
import { hostContract } from "./host.ts";

hostContract("of this machine", { it: (...fileSystems) => needs("root", ...fileSystems), open: openRealHost });
