// A cgroup of the tests' own in every hierarchy of this machine, below which a node's kubelet makes those of its pods. It is named
// by the process that made it, so that what a killed one left is known and removed by the next.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pauseMs } from "./pause.ts";

const mountPoint = "/sys/fs/cgroup";
const cgroup2Magic = 0x63677270;
const prefix = "longshore-";
/** Processes that were killed leave their cgroups a moment later. */
const removeMsMax = 60_000;

/** Makes `/longshore-PID-NAME` in all hierarchies and returns that path. */
export function makeCgroup(name: string): string {
  removeStaleCgroups();
  const path = `/${prefix}${process.pid}-${name}`;
  for (const hierarchy of hierarchies()) {
    if (isUnified(hierarchy)) passControllersOn(hierarchy);
    mkdirSync(join(hierarchy, path));
    if (isUnified(hierarchy)) passControllersOn(join(hierarchy, path));
    else inheritProcessors(hierarchy, path);
  }
  return path;
}

/** Removes it everywhere with all that is below it, which nothing may run in any more. What is not there is removed. */
export function removeCgroup(path: string): void {
  for (const hierarchy of hierarchies()) {
    const folder = join(hierarchy, path);
    for (let waitedMs = 0; existsSync(folder); waitedMs += 50) {
      try {
        removeTree(folder);
      } catch (error) {
        if (waitedMs >= removeMsMax) throw error;
        pauseMs(50);
      }
    }
  }
}

/** The cgroups of this process's tests that are there, in whichever hierarchy. */
export function cgroupsNamed(path: string): string[] {
  return hierarchies()
    .map((hierarchy) => join(hierarchy, path))
    .filter((folder) => existsSync(folder));
}

/** One folder for each hierarchy that controllers are mounted in; with cgroup v2 alone there is one in all. */
function hierarchies(): string[] {
  if (isUnified(mountPoint)) return [mountPoint];
  // Several controllers may share a hierarchy: `cpu` is a link to `cpu,cpuacct` then.
  const entries = readdirSync(mountPoint, { withFileTypes: true }).filter((entry) => !entry.isSymbolicLink());
  return entries.map(({ name }) => join(mountPoint, name)).filter((folder) => existsSync(join(folder, "cgroup.procs")));
}

function isUnified(folder: string): boolean {
  return statfsSync(folder).type === cgroup2Magic;
}

/** With cgroup v2 a child has the controllers that its parent passes on. */
function passControllersOn(folder: string): void {
  const controllers = readFileSync(join(folder, "cgroup.controllers"), "utf8").trim();
  for (const controller of controllers.split(/\s+/).filter((name) => name !== "")) {
    writeFileSync(join(folder, "cgroup.subtree_control"), `+${controller}`);
  }
}

/** In a new cpuset nothing may run until it is told where. */
function inheritProcessors(hierarchy: string, path: string): void {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    const own = join(hierarchy, path, file);
    if (existsSync(own)) writeFileSync(own, readFileSync(join(hierarchy, file), "utf8"));
  }
}

function removeTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(join(folder, entry.name));
  }
  rmdirSync(folder);
}

function removeStaleCgroups(): void {
  for (const hierarchy of hierarchies()) {
    for (const name of readdirSync(hierarchy)) {
      if (!name.startsWith(prefix)) continue;
      const pid = Number(name.slice(prefix.length).split("-")[0]);
      if (existsSync(`/proc/${pid}`)) continue;
      try {
        removeTree(join(hierarchy, name));
      } catch {
        // What ran in it is still on its way out; the next one removes it.
      }
    }
  }
}
