// The order of the test files: what takes longest by far begins first, also on a machine that knows of no durations yet and would
// go by the size of files. At the end it would keep one worker busy for long after the other has nothing left to do.
import TestSequencer from "@jest/test-sequencer";

const longest = /\/test\/e2e\/csi-clusters\.test\.ts$/;

export default class LongestFirst extends TestSequencer {
  sort(tests) {
    const sorted = super.sort(tests);
    const isLongest = ({ path }) => longest.test(path);
    return [...sorted.filter(isLongest), ...sorted.filter((each) => !isLongest(each))];
  }
}
