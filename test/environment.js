// Jest gives every test file a copy of `process`, whose signal handlers never run. What a test leaves outside its
// process (mounts, loop devices, folders) has to go when the run is interrupted, so the real one is handed in here.
import { TestEnvironment } from "jest-environment-node";

export default class extends TestEnvironment {
  async setup() {
    await super.setup();
    this.global.processOfTestRun = process;
  }
}
