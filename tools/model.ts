// Checks the model of the group commit (model/group-commit.pml) with spin: the model as it is must pass, and each of its
// mutants must be caught, or the checks would say nothing. `--full` adds a run that takes about a minute by itself. Exit
// status 77 where a program is missing.

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const model = join(import.meta.dirname, "../model/group-commit.pml");
const exitSkipped = 77;
const memoryMiBMax = 2000;
const runMsMax = 300_000;

interface Check {
  readonly name: string;
  readonly defines: readonly string[];
  /** `safety`: assertions and ends, everywhere. `liveness`: the LTL property, with weak fairness. */
  readonly kind: "safety" | "liveness";
  readonly isMutant: boolean;
}

const sound = (name: string, kind: Check["kind"], ...defines: string[]): Check => ({
  name,
  defines,
  kind,
  isMutant: false,
});
const mutant = (name: string): Check => ({ name, defines: ["TERMS=2", name], kind: "safety", isMutant: true });

const checks: readonly Check[] = [
  sound("safety and exits: 2 points, 3 terms, no crash", "safety", "TERMS=3", "CRASHES=0"),
  sound("safety and exits: 2 points, 2 terms, a crash", "safety", "TERMS=2"),
  sound("liveness: 1 point, 2 terms, a crash", "liveness", "TERMS=2", "POINTS=1"),
  ...["EQUAL_EPOCH", "VOTED_ABORTS", "COMMIT_EARLY", "LATE_ANSWER", "OLD_TERM_COMMITS", "NO_TAKE_AWAY"].map(mutant),
  mutant("NOTHING_ARRIVES"),
];
const fullChecks = [sound("safety and exits: 2 points, 3 terms, a crash", "safety", "TERMS=3")];

const compilerOptions = {
  safety: ["-DSAFETY", "-DNOCLAIM"],
  liveness: ["-DNFAIR=3"],
};
const searchOptions = { safety: [], liveness: ["-a", "-f"] };

/** Runs a program in the folder and returns what it printed; throws, with that, when it fails. */
function run(folder: string, command: string, options: readonly string[]): string {
  const { status, error, stdout, stderr } = spawnSync(command, options, {
    cwd: folder,
    encoding: "utf8",
    timeout: runMsMax,
    maxBuffer: 1 << 26,
  });
  if (error !== undefined || status !== 0) {
    throw new Error(`${command} ${options.join(" ")} failed\n${stdout}${stderr}`, { cause: error });
  }
  return stdout;
}

/** The line to print, and whether it is what is expected. */
function check({ name, defines, kind, isMutant }: Check, folder: string): { line: string; isGood: boolean } {
  copyFileSync(model, join(folder, "model.pml"));
  run(folder, "spin", ["-a", ...defines.map((define) => `-D${define}`), "model.pml"]);
  // The compiler warns of what spin generates.
  const limits = ["-DCOLLAPSE", `-DMEMLIM=${memoryMiBMax}`];
  run(folder, "gcc", ["-w", isMutant ? "-O0" : "-O1", ...compilerOptions[kind], ...limits, "-o", "pan", "pan.c"]);
  const told = run(folder, "./pan", [...searchOptions[kind], "-m100000"]);
  const errors = Number(/errors: (\d+)/.exec(told)?.[1]);
  const states = Number(/(\d+) states, stored/.exec(told)?.[1] ?? Number.NaN);
  const isWhole = !/max search depth too small|out of memory|reached -DMEMLIM/.test(told) && states > 0;
  const count = `${states.toLocaleString("en")} states`;
  if (isMutant) {
    const assertion = /pan:1: (.*) \(at depth/.exec(told)?.[1] ?? "nothing";
    return {
      line: `mutant ${name}: ${errors === 1 ? "caught" : "MISSED"}, ${count}, ${assertion}`,
      isGood: errors === 1,
    };
  }
  const isGood = errors === 0 && isWhole;
  const trail = () => `\n${told}\n${run(folder, "spin", ["-t", "-p", "-g", "model.pml"])}`;
  return { line: `${name}: ${count}, ${isGood ? "no error" : `FAILED${errors > 0 ? trail() : `\n${told}`}`}`, isGood };
}

function isInstalled(program: string): boolean {
  return spawnSync(program, ["--version"], { stdio: "ignore" }).error === undefined;
}

function main(): number {
  const missing = ["spin", "gcc"].filter((program) => !isInstalled(program));
  if (missing.length > 0) {
    console.log(`not checked: ${missing.join(" and ")} missing; \`make setup\` as root installs what is needed`);
    return exitSkipped;
  }
  const folder = mkdtempSync(join(tmpdir(), "longshore-model-"));
  try {
    let isGood = true;
    for (const each of [...checks, ...(process.argv.includes("--full") ? fullChecks : [])]) {
      const result = check(each, folder);
      console.log(result.line);
      isGood &&= result.isGood;
    }
    return isGood ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

process.exitCode = main();
