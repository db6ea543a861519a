// How the program tells the daemon its end: one line of JSON. The program has seen a tenant's data, so the daemon takes nothing
// from it but what is of the form and the size that is expected.

import { type Reason, SandboxdError } from "../../errors.ts";
import { printable } from "./names.ts";

/** Where the line is written. */
export const outcomeDescriptor = 3;

/** More than any line. Unit: bytes. */
export const mostOutcomeBytes = 16 * 1024;

/** What the daemon starts the program with, as JSON in its one argument. */
export interface Work {
  readonly task: "pack" | "unpack";
  readonly directory: string;
  readonly uid: number;
  readonly maxBytes?: number | undefined;
  readonly maxEntries?: number | undefined;
}

/** Counts by name, or why it failed. */
export type Outcome =
  | { readonly counts: Readonly<Record<string, number>> }
  | { readonly error: SandboxdError };

const reasons = ["ARCHIVE_REFUSED", "ARCHIVE_TOO_LARGE", "INTERNAL"] as const satisfies readonly Reason[];

const mostText = 1024;

export function encodeOutcome(outcome: Outcome): string {
  if ("counts" in outcome) return `${JSON.stringify({ counts: outcome.counts })}\n`;
  const { reason, message, details } = outcome.error;
  const { hint, metadata } = details;
  return `${JSON.stringify({ reason, message, hint, metadata })}\n`;
}

/** Undefined if it is no such line. */
export function decodeOutcome(line: string): Outcome | undefined {
  try {
    const { counts, reason: name, message, hint, metadata } = JSON.parse(line);
    if (counts !== undefined) return { counts: countsOf(counts) };
    const reason = reasons.find((one) => one === name);
    if (reason === undefined) return undefined;
    const details = {
      ...(hint === undefined ? {} : { hint: textOf(hint) }),
      ...(metadata === undefined ? {} : { metadata: textsOf(metadata) }),
    };
    return { error: new SandboxdError(reason, textOf(message), details) };
  } catch {
    return undefined;
  }
}

function countsOf(value: object): Readonly<Record<string, number>> {
  const entries = Object.entries(value);
  if (entries.every(([, count]) => Number.isSafeInteger(count) && count >= 0))
    return Object.fromEntries(entries);
  throw new Error("not counts");
}

function textsOf(value: object): Readonly<Record<string, string>> {
  const entries = Object.entries(value).slice(0, 8);
  return Object.fromEntries(entries.map(([key, text]) => [printable(key, 32), textOf(text)]));
}

/** It should be printable already; quotation marks and backslashes are from having been made so. */
function textOf(value: unknown): string {
  if (typeof value !== "string") throw new Error("not a text");
  return value.slice(0, mostText).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
}
