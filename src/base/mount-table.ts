// The kernel's table of mounts, as this process sees them; see proc_pid_mountinfo(5). Pure.

export interface Mount {
  /** Which no other mount has at the same time. */
  readonly id: number;
  /**
   * Major and minor number of the file system, as `7:0`; the same for all mounts of it. `0:…` for one that is not of a single block
   * device.
   */
  readonly device: string;
  /** What of the file system is mounted: `/` for all of it, else the folder or file that was bound. */
  readonly root: string;
  readonly path: string;
  readonly type: string;
  /** What was mounted, such as `/dev/loop0`. */
  readonly source: string;
  /** Whether nothing can be written through this mount. */
  readonly isReadOnly: boolean;
  /** Whether what is mounted below it is mounted in other mount namespaces as well. */
  readonly isShared: boolean;
}

/** Oldest first. */
export function parseMountTable(text: string): Mount[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [before = "", after = ""] = line.split(" - ");
      const [id, , device = "", root = "", path = "", options = "", ...optional] = before.split(" ");
      const [type = "", source = "", superOptions = ""] = after.split(" ");
      return {
        id: Number(id),
        device,
        root: unescaped(root),
        path: unescaped(path),
        type,
        source: unescaped(source),
        // The whole file system may be, or only this mount of it.
        isReadOnly: [options, superOptions].some((list) => list.split(",").includes("ro")),
        isShared: optional.some((field) => field.startsWith("shared:")),
      };
    });
}

/** What is seen at a path where something is mounted: of several mounts the last one, which hides the others. */
export function topmostAt(entries: readonly Mount[], path: string): Mount | undefined {
  return entries.findLast((entry) => entry.path === path);
}

/** The mount in which a path lies. */
export function mountHolding(entries: readonly Mount[], path: string): Mount | undefined {
  const holding = entries.filter((entry) => isAtOrBelow(path, entry.path));
  const length = Math.max(...holding.map((entry) => entry.path.length));
  return holding.findLast((entry) => entry.path.length === length);
}

function isAtOrBelow(path: string, folder: string): boolean {
  return path === folder || folder === "/" || path.startsWith(`${folder}/`);
}

/** Space, tab, line break and backslash are written as three octal digits. */
function unescaped(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
