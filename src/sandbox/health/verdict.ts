// What a health check says after one more probe: a function of what it said before, the probe's outcome, and the time.

import type { Health, HealthCheck } from "../record.ts";

/** Of a sandbox that was just started. */
export const untested: Health = { state: "STARTING", failures: 0, message: "not tried yet" };

/** What a probe found. */
export interface Outcome {
  /** `untried`: nothing was found out, through no fault of the sandbox. */
  readonly kind: "passed" | "failed" | "untried";
  readonly message: string;
}

/** When a probe took place. */
export interface When {
  /** From the start of the run to the start of the probe. Steady time. */
  readonly sinceStartMs: number;
  /** Its end, by the wall clock. */
  readonly timeMs: number;
}

/** As a probe's start lies in the start period or not, so its failure counts or not; Docker draws the line there too. */
export function verdictOf(
  before: Health,
  { kind, message: said }: Outcome,
  { startPeriodMs, retries }: Pick<HealthCheck, "startPeriodMs" | "retries">,
  { sinceStartMs, timeMs }: When,
): Health {
  if (kind === "untried") return before;
  const message = plainText(said);
  if (kind === "passed") return { state: "HEALTHY", failures: 0, message, timeMs };
  if (before.state === "STARTING" && sinceStartMs < startPeriodMs) {
    return { state: "STARTING", failures: 0, message, timeMs };
  }
  const failures = before.failures + 1;
  return { state: failures >= retries ? "UNHEALTHY" : before.state, failures, message, timeMs };
}

/** As the contract bounds it. */
const mostMessageBytes = 512;

/** On one line, without control and format characters, cut at a whole character: it is shown to people, and the sandbox wrote it. */
function plainText(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]+/gu, " ").trim();
  const bytes = Buffer.from(line);
  if (bytes.length <= mostMessageBytes) return line;
  return new TextDecoder().decode(bytes.subarray(0, mostMessageBytes), { stream: true });
}
