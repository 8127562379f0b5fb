// A YAML file as a tree, and where in the file each field stands.
import { readFile } from "node:fs/promises";
import { isMap, isNode, LineCounter, parseDocument } from "yaml";
import { LongshoreError } from "../domain/errors.ts";

export interface YamlFile {
  readonly tree: unknown;
  /** The line, from 1, of a field, or of the innermost section of its path that is there. */
  lineOf(path: readonly string[]): number | undefined;
}

/** Throws `BadRequest` when the file cannot be read or is no YAML; the message has line and column. */
export async function readYamlFile(file: string): Promise<YamlFile> {
  const lines = new LineCounter();
  const document = parseDocument(await textOf(file), { lineCounter: lines });
  const [error] = document.errors;
  if (error !== undefined) throw new LongshoreError("BadRequest", `${file} is not YAML: ${error.message}`);
  function offsetOf(path: readonly string[]): number | undefined {
    const parent = path.length <= 1 ? document.contents : document.getIn(path.slice(0, -1), true);
    const name = path.at(-1);
    const pair = isMap(parent) ? parent.items.find((item) => isNode(item.key) && String(item.key) === name) : undefined;
    if (pair !== undefined && isNode(pair.key)) return pair.key.range?.[0];
    return path.length === 0 ? undefined : offsetOf(path.slice(0, -1));
  }
  return {
    tree: document.toJS(),
    lineOf(path) {
      const offset = offsetOf(path);
      return offset === undefined ? undefined : lines.linePos(offset).line;
    },
  };
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new LongshoreError("BadRequest", `cannot read ${file}`, { cause });
  }
}
