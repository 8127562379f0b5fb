// Every refusal and failure leaves as a problem document, whoever found it: a handler, the validator, the HTTP parser.
import type { FastifyError } from "fastify";
import { BugError } from "../base/assert.ts";
import { describe, LongshoreError } from "../domain/errors.ts";
import { problemOf } from "../wire/problem.ts";
import type { Problem } from "../wire/schemas.ts";
import type { Caller } from "./caller.ts";

/**
 * What an error means to the one who asked. Failures of ours say no more than where their details are logged; causes, which
 * name paths and systems, are for our own cluster only.
 */
export function problemOfError(error: unknown, requestId: string, caller?: Caller): Problem {
  const known = knownError(error);
  if (known !== undefined) return problemOf(known.code, caller?.kind === "own" ? describe(known) : known.message);
  return problemOf("Internal", `unexpected failure; the agent's log has it under request ${requestId}`);
}

/** The error as a row of the table, `undefined` for a defect of ours. */
function knownError(error: unknown): LongshoreError | undefined {
  if (error instanceof LongshoreError) return error;
  if (error instanceof BugError || typeof error !== "object" || error === null) return undefined;
  const { code = "", statusCode = 500, validation, message = "it cannot be read" } = error as Partial<FastifyError>;
  if (validation !== undefined) return new LongshoreError("BadRequest", validationText(error as FastifyError));
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") return new LongshoreError("BodyTooLarge", message);
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") return new LongshoreError("MediaTypeUnsupported", message);
  return statusCode >= 400 && statusCode < 500 ? new LongshoreError("BadRequest", message) : undefined;
}

/** `body: /sizeBytes must be integer`, with the unknown or missing field named. */
function validationText({ validation = [], validationContext = "body" }: FastifyError): string {
  const texts = validation.map(({ instancePath, message = "is wrong", params }) => {
    const { additionalProperty, allowedValue } = params as { additionalProperty?: string; allowedValue?: unknown };
    const extra = additionalProperty ?? (allowedValue === undefined ? undefined : JSON.stringify(allowedValue));
    return `${instancePath || "it"} ${message}${extra === undefined ? "" : ` (${extra})`}`;
  });
  return `${validationContext}: ${texts.join("; ")}`;
}
