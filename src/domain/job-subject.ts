// What a job moves: one volume, or the volumes of a consistency group as one.
import { LongshoreError } from "./errors.ts";

export interface JobGroup {
  readonly name: string;
  readonly volumes: readonly string[];
}

export type JobSubject =
  | { readonly kind: "volume"; readonly volume: string }
  | { readonly kind: "group"; readonly group: JobGroup };

/** Throws `BadRequest` unless exactly one of the two is given, and a group names each volume once. */
export function jobSubject(spec: {
  readonly volume?: string | undefined;
  readonly group?: JobGroup | undefined;
}): JobSubject {
  const { volume, group } = spec;
  if ((volume === undefined) === (group === undefined)) {
    throw new LongshoreError("BadRequest", "a job moves either a volume or a group, and names exactly one of them");
  }
  if (group === undefined) return { kind: "volume", volume: volume as string };
  const { volumes } = group;
  if (volumes.length === 0 || new Set(volumes).size !== volumes.length) {
    throw new LongshoreError("BadRequest", `group ${group.name} has to name each of its volumes once`);
  }
  return { kind: "group", group };
}

/** The names of the volumes that a job moves. */
export function volumesOf(spec: Parameters<typeof jobSubject>[0]): readonly string[] {
  const subject = jobSubject(spec);
  return subject.kind === "group" ? subject.group.volumes : [subject.volume];
}
