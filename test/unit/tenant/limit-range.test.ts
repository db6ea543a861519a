import { describe, expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { noNetwork } from "../../../src/network/policy.ts";
import type { Resources } from "../../../src/sandbox/record.ts";
import { changedResources, effectiveSpec, type SpecRequest } from "../../../src/sandbox/spec.ts";
import { noRange, rangeViolations } from "../../../src/tenant/limit-range.ts";
import type { LimitRange } from "../../../src/tenant/record.ts";
import { configOf } from "../config/fixture.ts";

const mebibyte = 2 ** 20;

const rulesOf = () =>
  configOf(`
  [defaults]
  cpu_millis = 1000
  memory_bytes = "512MiB"
  [templates.large]
  image = "busybox"
  [templates.large.resources]
  cpu_millis = 4000
`);

const request: SpecRequest = {
  template: "",
  image: "busybox",
  command: [],
  args: [],
  env: {},
  workingDir: "",
  labels: {},
  resources: {},
};

const under = (range: Partial<LimitRange>, asked: Partial<Resources> = {}, template = "") =>
  effectiveSpec({ ...request, template, resources: asked }, rulesOf(), {
    tenant: "acme",
    limitRange: { ...noRange, ...range },
    network: noNetwork,
  }).resources;

/** The refusal; fails if there is none. */
function refusalOf(what: () => unknown): SandboxdError {
  try {
    what();
  } catch (error) {
    if (error instanceof SandboxdError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("what nobody named", () => {
  test("is the tenant's default, else the host's", () => {
    expect(under({ defaults: { cpuMillis: 700, pids: 33 } })).toMatchObject({
      cpuMillis: 700,
      pids: 33,
      memoryBytes: 512 * mebibyte,
    });
  });

  test("is brought within the range", () => {
    expect(under({ max: { cpuMillis: 300 }, min: { pids: 500 } })).toMatchObject({
      cpuMillis: 300,
      pids: 500,
    });
  });

  test("of a request is what the ratio demands of its limit, and never above that", () => {
    expect(under({ maxRatio: { cpu: 2 } }, { cpuMillis: 601 })).toMatchObject({ cpuRequestMillis: 301 });
    expect(under({ defaults: { cpuRequestMillis: 900 } }, { cpuMillis: 600 })).toMatchObject({
      cpuRequestMillis: 600,
    });
    expect(under({ defaults: { memoryRequestBytes: 9 * mebibyte } })).toMatchObject({
      memoryRequestBytes: 9 * mebibyte,
    });
  });

  test("gives way to the template", () => {
    expect(under({ defaults: { cpuMillis: 700 } }, {}, "large").cpuMillis).toBe(4_000);
  });
});

describe("what the range does not allow", () => {
  test.each<[string, Partial<LimitRange>, Partial<Resources>, string, object]>([
    [
      "more than the most",
      { max: { cpuMillis: 500 } },
      { cpuMillis: 501 },
      "cpu_millis",
      { limit: 500, asked: 501 },
    ],
    ["less than the least", { min: { pids: 20 } }, { pids: 19 }, "pids", { limit: 20, asked: 19 }],
    [
      "a limit too many times its request",
      { maxRatio: { memory: 4 } },
      { memoryBytes: 400 * mebibyte, memoryRequestBytes: 99 * mebibyte },
      "memory_request_bytes",
      { limit: 100 * mebibyte, asked: 99 * mebibyte },
    ],
  ])("is refused: %s", (_, range, asked, resource, amounts) => {
    const error = refusalOf(() => under(range, asked));
    expect(error).toMatchObject({
      reason: "LIMIT_RANGE_VIOLATED",
      details: {
        fields: [{ field: `spec.resources.${resource}` }],
        quotas: [{ level: "SANDBOX", resource, ...amounts }],
        metadata: { tenant: "acme" },
      },
    });
    expect(error.message).toContain('tenant "acme"');
  });

  test("is refused of a template too", () => {
    expect(refusalOf(() => under({ max: { cpuMillis: 500 } }, {}, "large")).reason).toBe(
      "LIMIT_RANGE_VIOLATED",
    );
  });

  test("of a sandbox that is there is refused only where the change names it", () => {
    const present = under({});
    const asker = { tenant: "acme", limitRange: { ...noRange, max: { cpuMillis: 500, pids: 300 } } };
    const change = (asked: Partial<Resources>) => changedResources(present, asked, rulesOf(), asker);
    expect(change({ pids: 299 })).toMatchObject({ cpuMillis: 1_000, pids: 299 });
    expect(refusalOf(() => change({ pids: 301 })).details.fields).toMatchObject([
      { field: "spec.resources.pids" },
    ]);
  });
});

test("a range that contradicts itself is refused, naming each field", () => {
  const fields = (range: Partial<LimitRange>) =>
    rangeViolations({ ...noRange, ...range }, "limit_range").map(({ field }) => field);
  expect(fields({ min: { pids: 5 }, max: { pids: 4 } })).toEqual(["limit_range.min.pids"]);
  expect(fields({ min: { pids: 5 }, defaults: { pids: 4 } })).toEqual(["limit_range.default.pids"]);
  expect(fields({ defaults: { pids: 5 }, max: { pids: 4 } })).toEqual(["limit_range.default.pids"]);
  expect(fields({ defaults: { cpuRequestMillis: 5, cpuMillis: 4 } })).toEqual([
    "limit_range.default.cpu_request_millis",
  ]);
  expect(fields({ min: { pids: 4 }, defaults: { pids: 4 }, max: { pids: 4 } })).toEqual([]);
});
