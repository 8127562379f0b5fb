// The same tests for each storage backend, with a pair of real storage clusters that the tests of one file and backend share.
import { afterAll, describe, test } from "@jest/globals";
import { needs } from "../needs.ts";
import { type Backend, openPair, type Pair, type PairOptions } from "./pair.ts";

/** As long as everything in a test may take on a machine that is very busy; each wait in it has a limit of its own. */
const testMsMax = 600_000;

export type PairTest = (name: string, work: (pair: Pair) => Promise<void>) => void;

/** Before each test both agents run; after it every point is compared with what it has to be. */
export function onEachBackend(
  declare: (test: PairTest, backend: Backend) => void,
  options: (backend: Backend) => PairOptions & { needsDisk?: boolean } = () => ({}),
  backends: readonly Backend[] = ["copy", "reflink"],
): void {
  for (const backend of backends) {
    const { needsDisk = backend === "reflink", ...rest } = options(backend);
    const declareTest = needsDisk ? needs("root", "xfs") : (test as ReturnType<typeof needs>);
    describe(`with the ${backend} backend`, () => {
      let pair: Pair | undefined;
      afterAll(async () => pair?.close());
      declare((name, work) => {
        const run = async () => {
          pair ??= await openPair(backend, rest);
          await pair.ready();
          await work(pair);
          await pair.checkEveryPoint();
        };
        declareTest(name, run, testMsMax);
      }, backend);
    });
  }
}
