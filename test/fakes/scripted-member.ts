// An agent as the others of its cluster see it, for the edge between them: answers what the test has laid down, and
// remembers what it was asked.
import { LongshoreError } from "../../src/domain/errors.ts";
import type { MemberApi } from "../../src/wire/member.ts";

export class ScriptedMember {
  readonly asked: { readonly method: string; readonly args: readonly unknown[] }[] = [];
  readonly answers = new Map<string, unknown>();

  /** A call without an answer laid down fails as one of a later version would. */
  readonly api: MemberApi = new Proxy({} as MemberApi, {
    get: (_, method: string) => {
      return async (...args: unknown[]) => {
        this.asked.push({ method, args });
        if (this.answers.has(method)) return this.answers.get(method);
        throw new LongshoreError("Unsupported", `${method} has no answer`);
      };
    },
  });
}
