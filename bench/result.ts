// What a benchmark says: one line per goal, as a table for people or as JSON for programs.

/** Something that must be at most, or at least, a number. */
export interface Goal {
  readonly of: "p50" | "p95" | "ratio";
  readonly atMost?: number;
  readonly atLeast?: number;
}

export interface Result {
  readonly name: string;
  readonly unit: "ms" | "us" | "MB" | "MB/s" | "MB/h" | "1/h" | "1";
  readonly p50: number;
  readonly p95: number;
  /** Of the same thing on the bare engine in the same run; null where the engine has no such thing. */
  readonly baselineP50: number | null;
  /** To the baseline: of the medians, or of the 95th percentiles where the name says so. */
  readonly ratio: number | null;
  /** As "ratio<=1.05". */
  readonly goal: string;
  readonly pass: boolean;
}

interface Measured {
  readonly name: string;
  readonly unit: Result["unit"];
  readonly values: readonly number[];
  readonly baseline?: readonly number[];
  /** Which percentile the ratio compares. Default: 0.5. */
  readonly compared?: number;
  /** Whether the ratio says how many times less than the baseline, instead of how many times more. */
  readonly inverse?: boolean;
  readonly goal: Goal;
}

/** Sums up what was measured. @throws RangeError when there are no values. */
export function resultOf({
  name,
  unit,
  values,
  baseline,
  compared = 0.5,
  inverse = false,
  goal,
}: Measured): Result {
  const p50 = percentile(values, 0.5);
  const p95 = percentile(values, 0.95);
  const quotient =
    baseline === undefined ? null : percentile(values, compared) / percentile(baseline, compared);
  const ratio = quotient !== null && inverse ? 1 / quotient : quotient;
  const value = { p50, p95, ratio }[goal.of] ?? Number.NaN;
  const { atMost = Number.POSITIVE_INFINITY, atLeast = Number.NEGATIVE_INFINITY } = goal;
  return {
    name,
    unit,
    p50: rounded(p50),
    p95: rounded(p95),
    baselineP50: baseline === undefined ? null : rounded(percentile(baseline, 0.5)),
    ratio: ratio === null ? null : rounded(ratio),
    goal: goal.atMost === undefined ? `${goal.of}>=${goal.atLeast}` : `${goal.of}<=${goal.atMost}`,
    pass: value <= atMost && value >= atLeast,
  };
}

/** The nearest-rank percentile: a value that was measured, never one between two. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  if (value === undefined) throw new RangeError("a percentile of nothing");
  return value;
}

/** Lines of a table with a head, columns as wide as their widest cell. */
export function tableOf(results: readonly Result[]): string {
  const rows = results.map((one) => [
    one.name,
    one.unit,
    String(one.p50),
    String(one.p95),
    String(one.baselineP50 ?? "–"),
    String(one.ratio ?? "–"),
    one.goal,
    one.pass ? "met" : "MISSED",
  ]);
  const head = ["name", "unit", "p50", "p95", "engine p50", "ratio", "goal", ""];
  const all = [head, head.map((cell) => "-".repeat(cell.length)), ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Three significant decimals are more than the noise of any machine leaves. */
function rounded(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
