// Jest transform: removes types with Node's own stripper, so line numbers stay right and no compiler stands in between.
import { stripTypeScriptTypes } from "node:module";

export default { process: (source) => ({ code: stripTypeScriptTypes(source) }) };
