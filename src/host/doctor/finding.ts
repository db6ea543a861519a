// What an examination of the host finds.

/** Mirrors `sandboxd.v1.CheckVerdict`, from good to bad. */
export const verdicts = ["OK", "UNKNOWN", "WARNING", "FAILED"] as const;

export type Verdict = (typeof verdicts)[number];

export interface Finding {
  /** What was looked at, as documented in docs/operations.md. */
  readonly name: string;
  readonly verdict: Verdict;
  /** What was seen, in words. */
  readonly message: string;
  /** What to do; empty when all is well. */
  readonly hint: string;
  /** Published weaknesses that this is about. */
  readonly advisories: readonly string[];
}

export const ok = (name: string, message: string): Finding => finding(name, "OK", message, "");

/** What could not be looked at, which says nothing about it. */
export const unknown = (name: string, message: string, hint: string): Finding =>
  finding(name, "UNKNOWN", message, hint);

/** All that is promised holds, but the host is weaker, or less steady, than it could be. */
export const warning = (name: string, message: string, hint: string): Finding =>
  finding(name, "WARNING", message, hint);

/** Something that is promised does not hold on this host. */
export const failed = (name: string, message: string, hint: string): Finding =>
  finding(name, "FAILED", message, hint);

export function finding(
  name: string,
  verdict: Verdict,
  message: string,
  hint: string,
  advisories: readonly string[] = [],
): Finding {
  return { name, verdict, message, hint, advisories };
}

/** The worst of all; OK for none. */
export function worstOf(findings: readonly Finding[]): Verdict {
  const worst = Math.max(0, ...findings.map(({ verdict }) => verdicts.indexOf(verdict)));
  return verdicts[worst] ?? "OK";
}
