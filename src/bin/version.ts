// The version of all of Longshore: package.json has it.
import manifest from "../../package.json" with { type: "json" };

export const version: string = manifest.version;
