// The rules about what may stand where, which the type checker and the linter do not know: who imports whom, which
// folder owns which library, where time, chance, environment and other processes are touched, and names that say
// nothing. test/layers.test.ts applies them to the tree; CONTRIBUTING.md explains them.

import { dirname, posix } from "node:path";
import { type Token, tokens } from "./source-tokens.ts";

export interface SourceFile {
  /** From the root of the tree, with `/`. */
  readonly path: string;
  readonly text: string;
}

/** Which of our folders each folder under src/ may import. `bin` may import all, and nothing imports `bin`. */
export const mayImport: Readonly<Record<string, readonly string[]>> = {
  base: [],
  api: [],
  domain: ["base"],
  native: ["base"],
  pki: ["base", "domain"],
  wire: ["base", "domain"],
  storage: ["base", "domain", "native"],
  host: ["base", "domain"],
  transfer: ["base", "domain", "native"],
  kube: ["base", "api"],
  engine: ["base", "domain", "wire", "storage", "transfer"],
  controllers: ["base", "domain", "api", "kube", "wire"],
  agent: ["base", "domain", "wire", "storage", "transfer", "engine"],
  csi: ["base", "api", "domain", "wire", "host"],
  bin: [
    ...["base", "api", "domain", "pki", "wire", "storage", "host", "transfer", "kube", "engine", "controllers"],
    ...["agent", "csi"],
  ],
};

/** The folder that imports each library, behind an interface of ours: one, save that two run commands of the host. */
export const libraryOwners: Readonly<Record<string, string | readonly string[]>> = {
  "@dot-i/k8s-operator": "kube",
  "@grpc/grpc-js": "csi",
  "@grpc/proto-loader": "csi",
  "@kubernetes/client-node": "kube",
  "@peculiar/x509": "pki",
  commander: "bin",
  "cron-parser": "domain",
  fastify: "agent",
  koffi: "native",
  "node:child_process": ["storage", "host"],
  "node:sqlite": "engine",
  pino: "base",
  "prom-client": "base",
  "reflect-metadata": "pki",
  typebox: "wire",
  undici: "wire",
  yaml: "bin",
};

/** Where each kind of effect may be used directly; everywhere else it is a parameter. */
const effects: readonly {
  readonly uses: readonly string[];
  readonly folders: readonly string[];
  readonly instead: string;
}[] = [
  {
    uses: ["Date.now", "new Date ( )", "performance.now", "process.hrtime", "process.uptime", "Temporal.Now"],
    folders: ["base"],
    instead: "take a Clock",
  },
  { uses: ["setTimeout (", "setInterval ("], folders: ["base"], instead: "take a Clock" },
  // The deadline of a request on a real connection, which no simulated clock moves.
  { uses: ["AbortSignal.timeout"], folders: ["base", "kube", "wire", "transfer"], instead: "take a Clock" },
  {
    uses: ["Math.random", "randomBytes (", "randomUUID (", "randomInt (", "randomFillSync (", "getRandomValues ("],
    folders: ["base"],
    instead: "take Dice",
  },
  { uses: ["process.env"], folders: ["bin"], instead: "take the value as an option" },
  { uses: ["createRequire ("], folders: ["kube"], instead: "import the module" },
];

const emptyNames = /^(?:utils?|common|misc|helpers?|shared)$/;

/** Every breach in these files, as `PATH:LINE: what is wrong, and what to do instead`. */
export function breaches(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => {
    const found = tokens(file.text);
    const isTest = /\.test\.ts$/.test(file.path);
    const isProduct = file.path.startsWith("src/") && !isTest;
    return [
      ...nameBreaches(file.path),
      ...exportBreaches(found).map((breach) => at(file, breach)),
      ...(isProduct ? productBreaches(file.path, found).map((breach) => at(file, breach)) : []),
    ];
  });
}

interface Breach {
  readonly line: number;
  readonly what: string;
}

const at = (file: SourceFile, { line, what }: Breach) => `${file.path}:${line}: ${what}`;

function nameBreaches(path: string): string[] {
  const empty = path
    .split("/")
    .map((part) => part.replace(/\..*$/, ""))
    .find((name) => emptyNames.test(name));
  if (empty !== undefined) return [`${path}:1: "${empty}" says nothing; name the subject`];
  return /(?:^|\/)index\.ts$/.test(path) ? [`${path}:1: a barrel file; import from the file itself`] : [];
}

function exportBreaches(found: readonly Token[]): Breach[] {
  const exports = found.flatMap(({ kind, text, line }, index) => {
    if (kind !== "word" || text !== "export" || isMember(found, index)) return [];
    return [{ line, next: found[index + 1]?.text, from: moduleAfter(found, index) }];
  });
  const isBarrel = exports.length > 0 && exports.every(({ from }) => from !== undefined);
  return exports.flatMap(({ line, next, from }) => {
    if (next === "default") return [{ line, what: "a default export; export it by its name" }];
    if (isBarrel || (next === "*" && from !== undefined)) {
      return [{ line, what: "a barrel; import from the file itself" }];
    }
    return [];
  });
}

function productBreaches(path: string, found: readonly Token[]): Breach[] {
  const folder = path.split("/")[1] ?? "";
  if (mayImport[folder] === undefined || path.split("/").length < 3) {
    return [{ line: 1, what: "not in a folder that mayImport of tools/layers.ts has a row for" }];
  }
  const imported = imports(found).flatMap(({ line, what }) => {
    const breach = what.startsWith(".") ? folderBreach(path, folder, what) : libraryBreach(folder, what);
    return breach === undefined ? [] : [{ line, what: breach }];
  });
  return [...imported, ...effectBreaches(folder, found)];
}

function folderBreach(path: string, folder: string, specifier: string): string | undefined {
  const [top, target = ""] = posix.join(dirname(path), specifier).split("/");
  if (top !== "src") return folder === "bin" ? undefined : `${specifier} is outside src/`;
  if (target === folder || mayImport[folder]?.includes(target)) return undefined;
  return `${folder} may not import ${target}; see the table in CONTRIBUTING.md`;
}

function libraryBreach(folder: string, specifier: string): string | undefined {
  const library = /^(?:node:[^/]+|@[^/]+\/[^/]+|[^/]+)/.exec(specifier)?.[0] ?? specifier;
  const owners = [libraryOwners[library] ?? []].flat();
  if (owners.includes(folder)) return undefined;
  if (owners.length > 0) return `${library} is imported in ${owners.join(" and ")} only, behind an interface of ours`;
  if (library.startsWith("node:")) return undefined;
  return `${library} has no owner; libraryOwners of tools/layers.ts says which folder may import it`;
}

function effectBreaches(folder: string, found: readonly Token[]): Breach[] {
  return effects
    .filter(({ folders }) => !folders.includes(folder))
    .flatMap(({ uses, folders, instead }) =>
      uses.flatMap((use) =>
        found.flatMap(({ line }, index) =>
          matches(found, index, use)
            ? [{ line, what: `${use.replaceAll(" ", "")} belongs in ${folders.join(", ")}; ${instead}` }]
            : [],
        ),
      ),
    );
}

/** Whether the tokens from `index` read as `use`, in which dots and spaces part the tokens. */
function matches(found: readonly Token[], index: number, use: string): boolean {
  const wanted = use.match(/\w+|[^\w\s]/g) ?? [];
  if (!wanted.every((text, offset) => found[index + offset]?.text === text)) return false;
  if (found[index]?.kind !== "word") return false;
  // A bare function may be reached through its module (crypto.randomBytes), but not be declared or be someone's method.
  const before = found[index - 1]?.text;
  if (before === "function") return false;
  return before !== "." || ["crypto", "globalThis", "timers"].includes(found[index - 2]?.text ?? "");
}

/** The modules a file imports, in whichever way: statically, as types, dynamically, by require. */
function imports(found: readonly Token[]): Breach[] {
  return found.flatMap(({ kind, text, line }, index) => {
    if (kind !== "word" || isMember(found, index)) return [];
    const what =
      text === "import" || text === "export"
        ? moduleAfter(found, index)
        : text === "require" || text === "createRequire"
          ? requiredAfter(found, index)
          : undefined;
    return what === undefined ? [] : [{ line, what }];
  });
}

const isMember = (found: readonly Token[], index: number) => found[index - 1]?.text === ".";

/** The module of an import or of an `export … from` that begins at `index`. */
function moduleAfter(found: readonly Token[], index: number): string | undefined {
  const next = found[index + 1];
  if (next?.kind === "string") return next.text;
  const isCall = next?.text === "(" && found[index]?.text === "import";
  if (isCall) return found[index + 2]?.kind === "string" ? found[index + 2]?.text : "a computed module";
  for (let at = index + 1; at < found.length; at++) {
    const token = found[at];
    if (token?.text === "from" && found[at + 1]?.kind === "string") return found[at + 1]?.text;
    // Only names, braces, commas and stars stand between `import` or `export` and `from`.
    if (token?.kind === "string" || !/^(?:[\p{ID_Start}$_][\p{ID_Continue}$]*|[{},*])$/u.test(token?.text ?? ";"))
      break;
  }
  return undefined;
}

/** The module of `require("x")` or `createRequire(…)("x")`. */
function requiredAfter(found: readonly Token[], index: number): string | undefined {
  const isFactory = found[index]?.text === "createRequire";
  const call = isFactory ? 1 + found.findIndex(({ text }, at) => at > index && text === ")") : index + 1;
  // import.meta.url holds no parenthesis, so the first that closes is the factory's.
  const module = found[call]?.text === "(" ? found[call + 1] : undefined;
  return module?.kind === "string" ? module.text : undefined;
}
