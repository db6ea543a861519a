import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { catalogue, createMetrics } from "../../../src/observe/metrics.ts";
import { watchProcess } from "../../../src/observe/process-metrics.ts";
import { createMetric, maxSeries } from "../../../src/observe/registry.ts";

const metric = <const L extends string = never>(
  type: "counter" | "gauge" | "histogram",
  labels: readonly L[] = [],
  buckets: readonly number[] = [],
) => createMetric<L>({ type, name: "m", help: "Help.", labels, buckets });

describe("the text", () => {
  test("of a counter has its help, type and one line for each series", () => {
    const counter = metric("counter", ["method", "code"]);
    counter.add({ method: "a/B", code: "ok" });
    counter.add({ method: "a/B", code: "ok" }, 2);
    counter.add({ code: "internal", method: "a/B" });
    expect(counter.render()).toBe(
      '# HELP m Help.\n# TYPE m counter\nm{method="a/B",code="ok"} 3\nm{method="a/B",code="internal"} 1\n',
    );
  });

  test("of a histogram has cumulative buckets, sum and count", () => {
    const histogram = metric("histogram", ["verb"], [0.1, 1]);
    for (const seconds of [0.05, 0.1, 0.5, 7]) histogram.observe({ verb: "list" }, seconds);
    expect(histogram.render().split("\n").slice(2)).toEqual([
      'm_bucket{verb="list",le="0.1"} 2',
      'm_bucket{verb="list",le="1"} 3',
      'm_bucket{verb="list",le="+Inf"} 4',
      'm_sum{verb="list"} 7.65',
      'm_count{verb="list"} 4',
      "",
    ]);
  });

  test("of a metric without labels is 0 from the start", () => {
    expect(metric("gauge").render()).toContain("\nm 0\n");
    expect(metric("histogram", [], [1]).render()).toContain('m_bucket{le="+Inf"} 0\n');
  });

  test("is of the format whatever the labels contain", { timeout: 20_000 }, () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.double(), (label, value) => {
        const gauge = metric("gauge", ["x"]);
        gauge.set({ x: label }, value);
        const lines = gauge.render().split("\n");
        expect(lines).toHaveLength(4);
        expect(lines[2]).toMatch(/^m\{x="([^"\\]|\\["\\n])*"\} (NaN|[+-]Inf|-?\d[\d.e+-]*)$/u);
      }),
    );
  });
});

describe("series", () => {
  test("a counter never falls", () => {
    const counter = metric("counter");
    counter.add({}, 5);
    counter.add({}, -3);
    expect(counter.render()).toContain("\nm 5\n");
  });

  test("a cleared gauge has none", () => {
    const gauge = metric("gauge", ["state"]);
    gauge.set({ state: "RUNNING" }, 3);
    gauge.clear();
    expect(gauge.render()).toBe("# HELP m Help.\n# TYPE m gauge\n");
  });

  test("have a bound; those that are there still count beyond it", () => {
    const counter = metric("counter", ["x"]);
    for (let index = 0; index < maxSeries + 10; index++) counter.add({ x: String(index) });
    counter.add({ x: "0" });
    const lines = counter.render().trim().split("\n").slice(2);
    expect(lines).toHaveLength(maxSeries);
    expect(lines[0]).toBe('m{x="0"} 2');
  });
});

describe("the catalogue", () => {
  const definitions = Object.values(catalogue);

  test("has unique names with their units, and a sentence of help for each", () => {
    expect(new Set(definitions.map(({ name }) => name)).size).toBe(definitions.length);
    for (const { name, type, help } of definitions) {
      expect(name).toMatch(/^(sandboxd|process|nodejs)_[a-z_]+$/);
      expect(name.endsWith("_total")).toBe(type === "counter");
      expect(help).toMatch(/^[A-Z1].*\.$/);
      if (type === "histogram") expect(name).toMatch(/_seconds$/);
    }
  });

  test("has buckets that rise", () => {
    for (const one of definitions) {
      if ("buckets" in one) expect(one.buckets).toEqual(one.buckets.toSorted((a, b) => a - b));
    }
  });

  test("is in the documents, metric by metric", () => {
    const document = readFileSync(join(import.meta.dirname, "../../../docs/observability.md"), "utf8");
    for (const { name, type, labels, help } of definitions) {
      const shown = labels.map((label) => `\`${label}\``).join(", ");
      expect(document).toContain(`| \`${name}\` | ${type} | ${shown} | ${help} |`);
    }
  });
});

test("two registries share nothing, and each renders what it counted", () => {
  const [one, other] = [createMetrics(), createMetrics()];
  one.metrics.transitions.add({ to: "RUNNING", reason: "PROGRESS" });
  one.metrics.samplerTickDuration.observe({}, 0.002);
  expect(one.render()).toContain('sandboxd_transitions_total{to="RUNNING",reason="PROGRESS"} 1\n');
  expect(one.render()).toContain("sandboxd_sampler_tick_duration_seconds_count 1\n");
  expect(other.render()).not.toContain("RUNNING");
});

test("the process's own costs are read at each rendering", () => {
  const registry = createMetrics();
  const watch = watchProcess(registry);
  const reading = (name: string) => Number(new RegExp(`^${name} (.*)$`, "m").exec(registry.render())?.[1]);
  expect(reading("process_resident_memory_bytes")).toBeGreaterThan(10_000_000);
  expect(reading("process_open_fds")).toBeGreaterThan(2);
  expect(reading("process_cpu_seconds_total")).toBeGreaterThan(0);
  expect(Math.abs(reading("process_start_time_seconds") - Date.now() / 1000 + process.uptime())).toBeLessThan(
    5,
  );
  expect(registry.render()).toMatch(/^sandboxd_event_loop_delay_seconds\{quantile="1"\} \d/m);
  watch.close();
});
