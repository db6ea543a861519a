import fc from "fast-check";
import { expect, test } from "vitest";
import { leavesOf } from "../../../src/config/given.ts";
import { literal } from "../../../src/config/literal.ts";
import { reserveOf } from "../../../src/config/reserve.ts";
import { schema } from "../../../src/config/schema.ts";
import { nearest } from "../../../src/config/suggest.ts";
import { formatDuration, formatSize, parseDuration, parseSize } from "../../../src/config/unit.ts";
import { configOf, load } from "./fixture.ts";

const natural = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

test("every duration and size reads back as it was written", () => {
  fc.assert(
    fc.property(natural, (amount) => {
      expect(parseDuration(formatDuration(amount))).toBe(amount);
      expect(parseSize(formatSize(amount))).toBe(amount);
    }),
  );
});

test("no text makes a duration or size that isn't a whole number", () => {
  const text = fc.oneof(
    fc.string(),
    fc.stringMatching(/^[0-9dhms.-]{0,12}$/),
    fc.stringMatching(/^\d{1,18}(KiB|TiB|MB)?$/),
  );
  fc.assert(
    fc.property(text, (given) => {
      for (const amount of [parseDuration(given), parseSize(given)]) {
        expect(amount === undefined || (Number.isSafeInteger(amount) && amount >= 0)).toBe(true);
      }
    }),
  );
});

const word = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/);
const milliseconds = (min: number, max: number) => fc.integer({ min, max }).map(formatDuration);

/** Configurations that are valid by how they are made. */
const documents = fc.record({
  "host.id": fc.option(word, { nil: undefined }),
  "host.labels": fc.dictionary(word, fc.string({ unit: "grapheme-ascii", maxLength: 20 }), { maxKeys: 4 }),
  "state.event_retention": fc.bigInt({ min: 1000n, max: 10_000_000n }),
  "state.event_retention_age": milliseconds(60_000, 31_536_000_000),
  "engine.socket": word.map((name) => `/run/${name}`),
  "engine.relist_period": milliseconds(1_000, 600_000),
  "scheduler.endpoints": fc.uniqueArray(
    fc.integer({ min: 1, max: 65_535 }).map((port) => `http://[::1]:${port}`),
    { maxLength: 3 },
  ),
  "capacity.memory_overcommit": fc.double({ min: 1, max: 10, noNaN: true }),
  "limits.max.memory_bytes": fc.integer({ min: 2 ** 30, max: 2 ** 44 }).map(formatSize),
  "templates.a.command": fc.array(
    fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0")),
    { maxLength: 3 },
  ),
  "templates.a.resources.pids": fc.option(fc.bigInt({ min: 4n, max: 4_194_304n }), { nil: undefined }),
  "log.level": fc.constantFrom("trace", "debug", "info", "warn", "error", "fatal"),
});

function write(document: Readonly<Record<string, Parameters<typeof literal>[0] | undefined>>): string {
  const lines = Object.entries(document).map(([key, raw]) =>
    raw === undefined ? "" : `${key} = ${literal(raw)}`,
  );
  return lines.join("\n");
}

test("what is printed as the configuration in effect is that configuration", () => {
  fc.assert(
    fc.property(documents, (document) => {
      const loaded = load(write(document));
      if ("errors" in loaded) throw new Error(JSON.stringify(loaded.errors));
      const printed = loaded.settings.flatMap((one) =>
        one.literal === undefined ? [] : [`${one.key} = ${one.literal}`],
      );
      expect(configOf(printed.join("\n"))).toEqual(loaded.config);
    }),
    { numRuns: 60 },
  );
});

test("a value has the same meaning in the file, the environment and a flag", () => {
  const leaf = fc.constantFrom(
    ...leavesOf(schema.fields, []).filter(({ field }) => typeof field.fallback !== "object"),
  );
  fc.assert(
    fc.property(leaf, ({ path, field }) => {
      if (field.fallback === undefined) return;
      const key = path.join(".");
      const text = String(field.fallback);
      const byFile = configOf(`${key} = ${literal(field.fallback)}`);
      expect(configOf("", { env: { [`SANDBOXD_${path.join("_").toUpperCase()}`]: text } })).toEqual(byFile);
      expect(configOf("", { flags: [`${key}=${text}`] })).toEqual(byFile);
    }),
  );
});

const values = fc.oneof(
  fc.constantFrom(
    "1",
    "-1",
    "1.5",
    "nan",
    "true",
    '""',
    "[]",
    "{}",
    "[[1], {a = 2}]",
    "2020-13-01",
    "07:32:00",
    "99999999999999999999",
  ),
  fc.string().map((text) => JSON.stringify(text)),
);
const keys = fc.oneof(
  fc.constantFrom(
    ...leavesOf(schema.fields, []).map(({ path }) => path.join(".")),
    "templates.a.env.B",
    "templates.a.resources",
    "x",
  ),
  fc.string().map((text) => JSON.stringify(text)),
);
const garbage = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.stringMatching(/^[[\]a-z="'.\n#{},0-9]{0,40}$/),
  fc
    .array(fc.tuple(keys, values), { maxLength: 6 })
    .map((pairs) => pairs.map(([key, value]) => `${key} = ${value}`).join("\n")),
);

test("no file makes the loader throw, and every error has a key or a line", () => {
  fc.assert(
    fc.property(garbage, (text) => {
      const loaded = load(text);
      if (!("errors" in loaded)) return;
      for (const { key, source, problem } of loaded.errors) {
        expect(key !== "" || (source.kind === "file" && source.line !== undefined)).toBe(true);
        expect(problem).not.toBe("");
      }
    }),
    { numRuns: 500 },
  );
});

test("no flag and no variable makes the loader throw", () => {
  const flag = fc.oneof(
    fc.string(),
    fc.tuple(keys, fc.string()).map(([key, value]) => `${key}=${value}`),
  );
  fc.assert(
    fc.property(fc.array(flag, { maxLength: 4 }), fc.string(), (flags, value) => {
      load("", { flags, env: { SANDBOXD_ENGINE_SOCKET: value, SANDBOXD_: value } });
    }),
  );
});

test("a slip of one letter is understood, another word is not", () => {
  expect(nearest("max_sandboxs", ["max_sandboxes", "min"])).toBe("max_sandboxes");
  expect(nearest("sokcet", ["socket", "labels"])).toBe("socket");
  expect(nearest("relist-period", ["relist_period"])).toBe("relist_period");
  expect(nearest("banana", ["socket", "labels"])).toBeUndefined();
});

test("the reserve leaves at least half of any machine, and grows with it", () => {
  const { capacity } = configOf("");
  const machine = fc.record({ cpuMillis: natural, memoryBytes: natural, pids: natural });
  fc.assert(
    fc.property(machine, (whole) => {
      const reserve = reserveOf(capacity, whole);
      expect(reserve.cpuMillis).toBeLessThanOrEqual(Math.ceil(whole.cpuMillis / 2));
      expect(reserve.memoryBytes).toBeLessThanOrEqual(Math.ceil(whole.memoryBytes / 2));
      expect(reserve.pids).toBeLessThanOrEqual(Math.ceil(whole.pids / 2));
    }),
  );
  const sized = { cpuMillis: 4_000, memoryBytes: 16 * 2 ** 30, pids: 32_768 };
  expect(reserveOf(capacity, sized)).toEqual({
    cpuMillis: 120,
    memoryBytes: 1_309_881_140,
    pids: 3_277,
  });
  expect(reserveOf({ ...capacity, reservePids: 0 }, sized).pids).toBe(0);
});
