import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { noNetwork } from "../../../src/network/policy.ts";
import type { Resources } from "../../../src/sandbox/record.ts";
import {
  changedResources,
  checkLabels,
  effectiveSpec,
  hashOfRequest,
  type SpecRequest,
} from "../../../src/sandbox/spec.ts";
import { noRange } from "../../../src/tenant/limit-range.ts";
import { configOf } from "../config/fixture.ts";

const mebibyte = 2 ** 20;

const toml = `
  [capacity]
  cpu_overcommit = 4
  memory_overcommit = 2

  [templates.shell]
  image = "busybox"
  command = ["sh", "-c"]
  args = ["sleep 60"]
  env = { PATH = "/bin", MODE = "template" }
  working_dir = "/srv"
  labels = { team = "a", tier = "template" }
  stop_grace = "3s"

  [templates.shell.resources]
  cpu_millis = 800
  memory_bytes = "128MiB"
  pids = 99

  [templates.bare]
  image = "busybox"
`;

const anyone = { tenant: "acme", limitRange: noRange, network: noNetwork };

const empty: SpecRequest = {
  template: "",
  image: "",
  command: [],
  args: [],
  env: {},
  workingDir: "",
  labels: {},
  resources: {},
};

const rulesOf = () => configOf(toml);

function specOf(request: Partial<SpecRequest>, rules = rulesOf()) {
  return effectiveSpec({ ...empty, image: "busybox", ...request }, rules, anyone);
}

const resourcesOf = (resources: Partial<Resources>, template = "") =>
  specOf({ resources, template }).resources;

/** The fields that a refusal names. */
function violations(action: () => unknown): readonly string[] {
  try {
    action();
    return [];
  } catch (error) {
    if (!(error instanceof SandboxdError) || error.reason !== "INVALID_FIELD") throw error;
    const fields = error.details.fields ?? [];
    for (const { field, description } of fields) expect(error.message).toContain(`${field}: ${description}`);
    return fields.map(({ field }) => field);
  }
}

describe("a spec is the request over its template over the defaults:", () => {
  test("what the request leaves out is the template's", () => {
    expect(effectiveSpec({ ...empty, template: "shell" }, rulesOf(), anyone)).toMatchObject({
      template: "shell",
      image: "busybox",
      command: ["sh", "-c"],
      args: ["sleep 60"],
      env: { PATH: "/bin", MODE: "template" },
      workingDir: "/srv",
      labels: { team: "a", tier: "template" },
      resources: { cpuMillis: 800, memoryBytes: 128 * mebibyte, pids: 99 },
      stopGraceMs: 3_000,
      networkMode: "NONE",
    });
  });

  test("what the request says wins, key by key in maps", () => {
    const request: SpecRequest = {
      template: "shell",
      image: "alpine",
      command: ["ls"],
      args: ["-l"],
      env: { MODE: "request", MORE: "1" },
      workingDir: "/var/work",
      labels: { tier: "request" },
      resources: { cpuMillis: 700 },
      stopGraceMs: 0,
    };
    expect(effectiveSpec(request, rulesOf(), anyone)).toMatchObject({
      image: "alpine",
      command: ["ls"],
      args: ["-l"],
      env: { PATH: "/bin", MODE: "request", MORE: "1" },
      workingDir: "/var/work",
      labels: { team: "a", tier: "request" },
      resources: { cpuMillis: 700, memoryBytes: 128 * mebibyte, pids: 99 },
      stopGraceMs: 0,
    });
  });

  test("where neither says anything, the host's defaults hold", () => {
    const rules = rulesOf();
    const { cpuMillis, memoryBytes, pids, openFiles, logBytes } = rules.defaults;
    expect(specOf({}, rules)).toMatchObject({
      template: "",
      command: [],
      args: [],
      env: {},
      workingDir: "/tmp",
      labels: {},
      resources: { cpuMillis, memoryBytes, pids, openFiles, logBytes },
      stopGraceMs: 10_000,
    });
  });

  test("another command never gets the template's arguments; other arguments keep its command", () => {
    expect(specOf({ template: "shell", command: ["ls"] })).toMatchObject({ command: ["ls"], args: [] });
    expect(specOf({ template: "shell", args: ["true"] })).toMatchObject({
      command: ["sh", "-c"],
      args: ["true"],
    });
  });

  test("a limit that is undefined is left out, not erased", () => {
    const resources = { cpuMillis: undefined, pids: undefined } as unknown as Partial<Resources>;
    expect(resourcesOf(resources, "shell")).toMatchObject({ cpuMillis: 800, pids: 99 });
  });

  test("a request that is left out is the limit over the overcommit ratio, rounded up", () => {
    expect(resourcesOf({ cpuMillis: 801, memoryBytes: 64 * mebibyte + 1 })).toMatchObject({
      cpuRequestMillis: 201,
      memoryRequestBytes: 32 * mebibyte + 1,
    });
  });

  test("a default that doesn't fit into the memory asked for shrinks; one that was asked for is refused", () => {
    const rules = rulesOf();
    const least = rules.limits.min.memoryBytes;
    expect(specOf({ resources: { memoryBytes: least } }, rules).resources.tmpfsBytes).toBeLessThanOrEqual(
      least,
    );
    expect(violations(() => resourcesOf({ memoryBytes: least, tmpfsBytes: least + 1 }))).toEqual([
      "spec.resources.tmpfs_bytes",
    ]);
  });

  test("block I/O is laid over key by key, and absent where no one asked", () => {
    expect(resourcesOf({}).blockIo).toBeUndefined();
    expect(resourcesOf({ blockIo: { readBytesPerSecond: 2 * mebibyte } }).blockIo).toEqual({
      readBytesPerSecond: 2 * mebibyte,
    });
  });

  test("a spec without any image is refused", () => {
    expect(violations(() => effectiveSpec(empty, rulesOf(), anyone))).toEqual(["spec.image"]);
  });
});

test.each(["other", "constructor", "__proto__", "toString"])("the template %s is unknown", (template) => {
  expect(() => specOf({ template })).toThrow(
    expect.objectContaining({
      reason: "TEMPLATE_NOT_FOUND",
      message: expect.stringContaining(`"${template}"`),
      details: expect.objectContaining({
        hint: expect.stringMatching(/(bare, shell|shell, bare)$/),
        fields: [expect.objectContaining({ field: "spec.template" })],
      }),
    }),
  );
});

describe("refused is", () => {
  test.each<[string, Partial<SpecRequest>, readonly string[]]>([
    ["LD_PRELOAD", { env: { LD_PRELOAD: "x" } }, ['spec.env["LD_PRELOAD"]']],
    [
      "any name under LD_ and SANDBOXD_",
      { env: { LD_: "", SANDBOXD_X: "" } },
      ['spec.env["LD_"]', 'spec.env["SANDBOXD_X"]'],
    ],
    ["a reserved label", { labels: { "sandboxd.mac": "x" } }, ['spec.labels["sandboxd.mac"]']],
    ["a working directory that climbs", { workingDir: "/tmp/../proc" }, ["spec.working_dir"]],
    ["a working directory that is not plain", { workingDir: "/tmp/./x" }, ["spec.working_dir"]],
    ["a working directory in /proc", { workingDir: "/proc/self/fd/7" }, ["spec.working_dir"]],
    ["a working directory in /sys", { workingDir: "//sys" }, ["spec.working_dir"]],
    ["a working directory in /dev", { workingDir: "/dev/shm/" }, ["spec.working_dir"]],
    ["more words than may be", { args: ["x".repeat(128 * 1024)] }, ["spec.env"]],
    ["several at once", { env: { LD_A: "" }, workingDir: "/.." }, ['spec.env["LD_A"]', "spec.working_dir"]],
  ])("%s", (_, request, fields) => {
    expect(violations(() => specOf(request))).toEqual(fields);
  });
});

describe("allowed is", () => {
  test.each<[string, Partial<SpecRequest>]>([
    ["a name that only contains LD_", { env: { OLD_PATH: "", ld_preload: "", LD: "", SANDBOXD: "" } }],
    [
      "a label that only resembles a reserved one",
      { labels: { sandboxd: "", "x.sandboxd.y": "", "sandboxd-x": "" } },
    ],
    ["a directory that only begins like a kernel one", { workingDir: "/process/dev" }],
    ["a directory with dots in its names", { workingDir: "/srv/..a/b.." }],
    ["as many words as may be", { args: ["x".repeat(128 * 1024 - 1)] }],
  ])("%s", (_, request) => {
    expect(violations(() => specOf(request))).toEqual([]);
  });

  test("what counts are bytes, not characters, and of all words together", () => {
    const half = 64 * 1024;
    const request = { args: ["é".repeat(half / 2)], env: { A: "x".repeat(half - 4) } };
    expect(violations(() => specOf(request))).toEqual([]);
    expect(violations(() => specOf({ ...request, command: [""] }))).toEqual(["spec.env"]);
  });
});

describe("of each resource", () => {
  const names = [
    ["cpuMillis", "cpu_millis"],
    ["memoryBytes", "memory_bytes"],
    ["pids", "pids"],
    ["openFiles", "open_files"],
    ["tmpfsBytes", "tmpfs_bytes"],
    ["tmpfsInodes", "tmpfs_inodes"],
    ["shmBytes", "shm_bytes"],
    ["logBytes", "log_bytes"],
  ] as const;
  test.each(names)("%s, the host's bounds are allowed and what lies beyond is refused", (key, name) => {
    const { limits } = rulesOf();
    const [least, most] = [limits.min[key], limits.max[key]];
    // so that no other rule stands in the way
    const roomy = { memoryBytes: limits.max.memoryBytes };
    const asked = (value: number) => violations(() => resourcesOf({ ...roomy, [key]: value }));
    const field = `spec.resources.${name}`;
    expect(asked(least)).not.toContain(field);
    expect(asked(least - 1)).toContain(field);
    expect(asked(most + 1)).toContain(field);
    if (key !== "tmpfsBytes" && key !== "shmBytes") expect(asked(most)).not.toContain(field);
  });

  test.each([
    ["cpu_request_millis", { cpuMillis: 500, cpuRequestMillis: 501 }],
    ["memory_request_bytes", { memoryBytes: 64 * mebibyte, memoryRequestBytes: 64 * mebibyte + 1 }],
    ["tmpfs_bytes", { memoryBytes: 64 * mebibyte, tmpfsBytes: 64 * mebibyte + 1 }],
    ["shm_bytes", { memoryBytes: 64 * mebibyte, shmBytes: 64 * mebibyte + 1 }],
  ])("%s is refused above its limit", (name, asked) => {
    expect(violations(() => resourcesOf(asked))).toEqual([`spec.resources.${name}`]);
  });
});

describe("changing resources", () => {
  const presentOf = () => resourcesOf({ cpuMillis: 800, cpuRequestMillis: 400, memoryBytes: 128 * mebibyte });

  test("keeps what is not named", () => {
    const present = presentOf();
    expect(changedResources(present, { pids: 50 }, rulesOf(), anyone)).toEqual({ ...present, pids: 50 });
    expect(changedResources(present, {}, rulesOf(), anyone)).toEqual(present);
  });

  test("shrinks a request that is not named with its limit", () => {
    const present = presentOf();
    expect(changedResources(present, { cpuMillis: 300 }, rulesOf(), anyone)).toMatchObject({
      cpuMillis: 300,
      cpuRequestMillis: 300,
    });
  });

  test("refuses a request above its limit, and what the host doesn't allow", () => {
    const present = presentOf();
    expect(
      violations(() =>
        changedResources(present, { cpuMillis: 300, cpuRequestMillis: 301 }, rulesOf(), anyone),
      ),
    ).toEqual(["spec.resources.cpu_request_millis"]);
    expect(violations(() => changedResources(present, { pids: 0 }, rulesOf(), anyone))).toEqual([
      "spec.resources.pids",
    ]);
  });
});

test("labels of an update are checked under the path that they have there", () => {
  expect(violations(() => checkLabels({ "sandboxd.x": "", fine: "" }, "labels"))).toEqual([
    'labels["sandboxd.x"]',
  ]);
  expect(violations(() => checkLabels({ fine: "" }, "labels"))).toEqual([]);
});

const anyText = fc.string({ unit: "grapheme", maxLength: 8 });
const anyMap = fc.dictionary(anyText, anyText, { maxKeys: 6 });
const anyRequest: fc.Arbitrary<SpecRequest> = fc
  .record({
    image: anyText,
    command: fc.array(anyText, { maxLength: 3 }),
    args: fc.array(anyText, { maxLength: 3 }),
    env: anyMap,
    labels: anyMap,
    cpuMillis: fc.nat(),
    pids: fc.nat(),
  })
  .map(({ cpuMillis, pids, ...rest }) => ({ ...empty, ...rest, resources: { cpuMillis, pids } }));

function reversed<T extends object>(value: T): T {
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, inner]) => [
        key,
        typeof inner === "object" && inner !== null && !Array.isArray(inner) ? reversed(inner) : inner,
      ]),
  ) as T;
}

describe("the hash of a request", () => {
  test("doesn't depend on the order of keys", () => {
    fc.assert(
      fc.property(anyRequest, (request) => {
        expect(hashOfRequest("acme", reversed(request))).toBe(hashOfRequest("acme", request));
      }),
    );
  });

  test("is the same only for the same request", () => {
    const canonical = (request: SpecRequest) => ({ ...request });
    fc.assert(
      fc.property(anyRequest, anyRequest, (one, other) => {
        let isSame = true;
        try {
          expect(canonical(one)).toEqual(canonical(other));
        } catch {
          isSame = false;
        }
        expect(hashOfRequest("acme", one) === hashOfRequest("acme", other)).toBe(isSame);
      }),
    );
  });

  test("differs by tenant, by each field and by the order of words", () => {
    const request = { ...empty, command: ["a", "b"] };
    const hashes = [
      hashOfRequest("acme", request),
      hashOfRequest("other", request),
      hashOfRequest("acme", { ...request, command: ["b", "a"] }),
      hashOfRequest("acme", { ...request, command: ["ab"] }),
      hashOfRequest("acme", { ...request, command: ["a"], args: ["b"] }),
      hashOfRequest("acme", { ...request, stopGraceMs: 0 }),
      hashOfRequest("acme", { ...request, env: { a: "b" } }),
      hashOfRequest("acme", { ...request, labels: { a: "b" } }),
      hashOfRequest("acme", { ...request, resources: { pids: 1 } }),
    ];
    expect(new Set(hashes).size).toBe(hashes.length);
  });
});
