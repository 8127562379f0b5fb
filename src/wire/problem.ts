// Errors on the wire: RFC 9457 problem documents whose `code` is a row of the error table, and the way back.
import { type ErrorCode, errorTable, LongshoreError } from "../domain/errors.ts";
import type { Problem } from "./schemas.ts";

/** The media type of every error response. */
export const problemMediaType = "application/problem+json";

const titles: Partial<Record<ErrorCode, string>> = { Unauthenticated: "Certificate required" };

/** The document that says this failure to another process or to a person. */
export function problemOf(code: ErrorCode, detail: string): Problem {
  const row = errorTable[code];
  return {
    type: `urn:longshore:problem:${code}`,
    title: titles[code] ?? wordsOf(code),
    status: row.http,
    detail,
    code,
    advice: row.advice,
  };
}

/** The error a problem document stands for, `undefined` when the text is no problem document of ours. */
export function errorOfProblem(body: unknown, context: string): LongshoreError | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const { code, detail } = body as { code?: unknown; detail?: unknown };
  if (typeof code !== "string" || !isErrorCode(code)) return undefined;
  return new LongshoreError(code, typeof detail === "string" && detail !== "" ? detail : context);
}

/** Whether a word is the code of a row of the error table. */
export function isErrorCode(word: string): word is ErrorCode {
  return Object.hasOwn(errorTable, word);
}

/** `DiskFull` → `Disk full`. */
function wordsOf(code: string): string {
  const spaced = code.replaceAll(
    /([a-z])([A-Z])/g,
    (_, left: string, right: string) => `${left} ${right.toLowerCase()}`,
  );
  return spaced;
}
