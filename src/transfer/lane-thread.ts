// Where a lane's thread begins: takes jobs, each with a port of its own, and runs them side by side.
import { type MessagePort, parentPort } from "node:worker_threads";
import { unreachable } from "../base/assert.ts";
import { type KernelSourceJob, runKernelSource } from "./kernel-source-thread.ts";
import { type KernelTargetJob, runKernelTarget } from "./kernel-target-thread.ts";
import { runTlsSource, type TlsSourceJob } from "./tls-source-thread.ts";
import { runTlsTarget, type TlsTargetJob } from "./tls-target-thread.ts";

export type ThreadJob = TlsSourceJob | TlsTargetJob | KernelSourceJob | KernelTargetJob;

parentPort?.on("message", ({ port, job }: { port: MessagePort; job: ThreadJob }) => {
  switch (job.role) {
    case "tlsSource":
      return runTlsSource(port, job);
    case "tlsTarget":
      return runTlsTarget(port, job);
    case "kernelSource":
      return runKernelSource(port, job);
    case "kernelTarget":
      return runKernelTarget(port, job);
    default:
      return unreachable(job);
  }
});
