// Counters, gauges and histograms, and their text for Prometheus. Written out rather than taken from prom-client:
// these three kinds are all that is needed, that one brings OpenTelemetry's API and summaries along, and here the
// names of labels are types and the number of series has a bound.

export interface Definition<L extends string = string> {
  readonly type: "counter" | "gauge" | "histogram";
  /** With the unit at its end, as Prometheus wants it. */
  readonly name: string;
  readonly help: string;
  readonly labels: readonly L[];
  /** Upper bounds of a histogram's buckets, rising; the last, infinity, is implied. */
  readonly buckets?: readonly number[];
}

type Labels<L extends string> = Readonly<Record<L, string>>;

export interface Counter<L extends string> {
  /** Adds to the series. At least 0; default 1. */
  add(labels: Labels<L>, amount?: number): void;
}

export interface Gauge<L extends string> {
  set(labels: Labels<L>, value: number): void;
  add(labels: Labels<L>, amount: number): void;
  /** Forgets all series, before those that still exist are set anew. */
  clear(): void;
}

export interface Histogram<L extends string> {
  observe(labels: Labels<L>, value: number): void;
}

/** Beyond this many series of one metric, further ones are not kept: labels must not be able to eat the memory. */
export const maxSeries = 1_000;

interface Series {
  readonly labels: string;
  value: number;
  /** Observations per bucket, not yet summed up, with infinity's at the end. */
  readonly counts: number[];
}

/** One metric of any kind; the types above say what may be done with which. */
export interface Metric<L extends string> extends Gauge<L>, Histogram<L> {
  add(labels: Labels<L>, amount?: number): void;
  /** The text exposition, version 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). */
  render(): string;
}

/** A metric without series. One without labels is 0 from the start. */
export function createMetric<L extends string>(definition: Definition<L>): Metric<L> {
  const { type, name, help, labels: names, buckets = [] } = definition;
  const series = new Map<string, Series>();
  const at = (labels: Labels<L>): Series | undefined => {
    const key = names.map((label) => `${label}="${escapeLabel(labels[label])}"`).join(",");
    const known = series.get(key);
    if (known !== undefined || series.size >= maxSeries) return known;
    const made = { labels: key, value: 0, counts: type === "histogram" ? zeros(buckets.length + 1) : [] };
    series.set(key, made);
    return made;
  };
  if (names.length === 0) at({} as Labels<L>);

  return {
    add(labels, amount = 1) {
      const found = at(labels);
      if (found !== undefined && (type !== "counter" || amount >= 0)) found.value += amount;
    },
    set(labels, value) {
      const found = at(labels);
      if (found !== undefined) found.value = value;
    },
    clear: () => series.clear(),
    observe(labels, value) {
      const found = at(labels);
      if (found === undefined || Number.isNaN(value)) return;
      const index = buckets.findIndex((bound) => value <= bound);
      const bucket = index === -1 ? buckets.length : index;
      found.counts[bucket] = (found.counts[bucket] ?? 0) + 1;
      found.value += value;
    },
    render() {
      const lines = [...series.values()].flatMap((one) =>
        type === "histogram" ? histogramLines(name, buckets, one) : [sample(name, one.labels, one.value)],
      );
      return [`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`, ...lines, ""].join("\n");
    },
  };
}

function histogramLines(
  name: string,
  buckets: readonly number[],
  { labels, value, counts }: Series,
): string[] {
  const prefix = labels === "" ? "" : `${labels},`;
  let count = 0;
  const lines = [...buckets, Number.POSITIVE_INFINITY].map((bound, index) => {
    count += counts[index] ?? 0;
    return sample(`${name}_bucket`, `${prefix}le="${formatNumber(bound)}"`, count);
  });
  return [...lines, sample(`${name}_sum`, labels, value), sample(`${name}_count`, labels, count)];
}

function sample(name: string, labels: string, value: number): string {
  return `${name}${labels === "" ? "" : `{${labels}}`} ${formatNumber(value)}`;
}

function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return Number.isFinite(value) ? String(value) : value > 0 ? "+Inf" : "-Inf";
}

const escapeHelp = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");

const escapeLabel = (text: string): string => escapeHelp(text).replaceAll('"', '\\"');

const zeros = (length: number): number[] => Array.from({ length }, () => 0);
