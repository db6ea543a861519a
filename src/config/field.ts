// The kinds of values that a key of the configuration can have: how each is written, bounded, read and named. A kind
// says no to everything that it doesn't name.

import type { TomlValue } from "smol-toml";
import { formatDuration, formatSize, parseDuration, parseSize } from "./unit.ts";

/** Why a value is refused, and what to do about it. Follows the value in a sentence: "is not a duration". */
interface Problem {
  readonly problem: string;
  readonly hint?: string;
}

export type Reading<T> = { readonly value: T } | Problem;

/** One key. `Unit` is appended to its name in the typed configuration: `period` is read as `periodMs`. */
export interface Field<T, Unit extends string = ""> {
  readonly kind: "field";
  readonly meaning: string;
  /** What is allowed, in words, with bounds. */
  readonly allowed: string;
  /** The default as a file would write it. Undefined: none. */
  readonly fallback: TomlValue | undefined;
  readonly unit: Unit;
  /** Whether its values must not be shown. */
  readonly secret: boolean;
  /** Takes what TOML gave, with integers as bigint. */
  read(raw: TomlValue): Reading<T>;
  /** The value that a file would have, from the text of a flag or of an environment variable. */
  fromText(text: string): TomlValue;
}

export interface Section<F extends Fields = Fields> {
  readonly kind: "section";
  readonly meaning: string;
  readonly fields: F;
}

/** A table of sections under names of the operator's choice. */
export interface Named<S extends Section = Section> {
  readonly kind: "named";
  readonly meaning: string;
  readonly item: S;
  readonly namePattern: RegExp;
}

export type Node = Field<unknown, string> | Section | Named;
export type Fields = { readonly [key: string]: Node };

interface Options<D> {
  readonly meaning: string;
  readonly default?: D;
}

/** A key without a default may be left out. */
type Value<T, O> = O extends { readonly default: unknown } ? T : T | undefined;

interface Kind<T, Unit extends string> {
  readonly allowed: string;
  readonly fallback: TomlValue | undefined;
  readonly unit: Unit;
  readonly secret?: boolean;
  read(raw: TomlValue): Reading<T>;
  fromText?(text: string): TomlValue;
}

function field<T, Unit extends string>(options: Options<unknown>, kind: Kind<T, Unit>): Field<T, Unit> {
  return { kind: "field", meaning: options.meaning, secret: false, fromText: (text) => text, ...kind };
}

export function section<F extends Fields>(meaning: string, fields: F): Section<F> {
  return { kind: "section", meaning, fields };
}

export function named<S extends Section>(options: Omit<Named<S>, "kind">): Named<S> {
  return { kind: "named", ...options };
}

interface Bounds {
  readonly min: number;
  readonly max: number;
}

/** A whole number. */
export function integer<const O extends Options<number> & Bounds>(options: O): Field<Value<number, O>> {
  return field(options, {
    allowed: `integer, ${options.min} to ${options.max}`,
    fallback: options.default === undefined ? undefined : BigInt(options.default),
    unit: "",
    read: (raw) => readInteger(raw, options) ?? { problem: "is not an integer" },
    fromText: integerFromText,
  });
}

/** Bytes: an integer, or a string with a binary unit. */
export function size<const O extends Options<number> & Bounds>(options: O): Field<Value<number, O>> {
  const hint = `write bytes (${options.min}) or a string with a unit: B, KiB, MiB, GiB or TiB ("512MiB")`;
  return field(options, {
    allowed: `size, ${formatSize(options.min)} to ${formatSize(options.max)}`,
    fallback: options.default === undefined ? undefined : formatSize(options.default),
    unit: "",
    read(raw) {
      const bytes = typeof raw === "string" ? parseSize(raw) : undefined;
      return (
        readInteger(bytes === undefined ? raw : BigInt(bytes), options) ?? { problem: "is not a size", hint }
      );
    },
    fromText: integerFromText,
  });
}

/** A number that may have a fraction. */
export function ratio<const O extends Options<number> & Bounds>(options: O): Field<Value<number, O>> {
  return field(options, {
    allowed: `number, ${options.min} to ${options.max}`,
    fallback: options.default,
    unit: "",
    read(raw) {
      const number = typeof raw === "bigint" ? Number(raw) : raw;
      return typeof number === "number" ? within(number, options) : { problem: "is not a number" };
    },
    fromText: (text) => (/^[+-]?\d{1,15}(\.\d{1,15})?$/.test(text) ? Number(text) : text),
  });
}

/** Yes or no. */
export function flag<const O extends Options<boolean>>(options: O): Field<Value<boolean, O>> {
  return field<Value<boolean, O>, "">(options, {
    allowed: "true, false",
    fallback: options.default,
    unit: "",
    read: (raw) =>
      typeof raw === "boolean"
        ? { value: raw as Value<boolean, O> }
        : { problem: "is neither true nor false" },
    fromText: (given) => (given === "true" ? true : given === "false" ? false : given),
  });
}

/** A length of time, read in milliseconds. */
export function duration<const O extends Options<string> & { readonly min: string; readonly max: string }>(
  options: O,
): Field<Value<number, O>, "Ms"> {
  const bounds = {
    min: parseDuration(options.min) ?? Number.NaN,
    max: parseDuration(options.max) ?? Number.NaN,
  };
  return field(options, {
    allowed: `duration, ${formatDuration(bounds.min)} to ${formatDuration(bounds.max)}`,
    fallback: options.default,
    unit: "Ms",
    read(raw) {
      const milliseconds = typeof raw === "string" ? parseDuration(raw) : undefined;
      if (milliseconds !== undefined) return within(milliseconds, bounds);
      return {
        problem: "is not a duration",
        hint: 'write a string with units, the largest first: d, h, m, s, ms ("1h30m", "500ms")',
      };
    },
  });
}

/** One of some words. */
export function choice<const O extends Options<string> & { readonly of: readonly string[] }>(
  options: O,
): Field<Value<O["of"][number], O>> {
  return field<Value<O["of"][number], O>, "">(options, {
    allowed: options.of.map((word) => `"${word}"`).join(", "),
    fallback: options.default,
    unit: "",
    read(raw) {
      const word = options.of.find((one) => one === raw);
      return word === undefined ? { problem: "is unknown" } : { value: word as Value<O["of"][number], O> };
    },
  });
}

/** What a string must be. */
export interface TextRule<T = string> {
  /** In words, for messages: "an absolute path". */
  readonly name: string;
  read(text: string): Reading<T>;
}

/** A string with a meaning of its own. */
export function text<T, const O extends Options<string>>(rule: TextRule<T>, options: O): Field<Value<T, O>> {
  return field(options, {
    allowed: rule.name,
    fallback: options.default,
    unit: "",
    read: (raw) => (typeof raw === "string" ? rule.read(raw) : { problem: "is not a string" }),
  });
}

/** Strings under one rule. As a flag or in the environment: separated by commas. */
export function list<const O extends Options<readonly string[]> & { readonly max: number }>(
  rule: TextRule,
  options: O,
): Field<Value<readonly string[], O>> {
  return field<Value<readonly string[], O>, "">(options, {
    allowed: `array of at most ${options.max}, each ${rule.name}`,
    fallback: options.default === undefined ? undefined : [...options.default],
    unit: "",
    read(raw) {
      if (!Array.isArray(raw)) return { problem: "is not an array" };
      if (raw.length > options.max) return { problem: `has ${raw.length} entries` };
      const values: string[] = [];
      for (const [index, entry] of raw.entries()) {
        const problem =
          typeof entry === "string" ? problemOf(rule.read(entry)) : { problem: "is not a string" };
        if (problem !== undefined)
          return { ...problem, problem: `has entry ${index + 1} ${show(entry)}, which ${problem.problem}` };
        if (typeof entry === "string") values.push(entry);
      }
      return { value: values };
    },
    fromText: (given) => (given === "" ? [] : given.split(",").map((entry) => entry.trim())),
  });
}

/** Strings under names. As a flag or in the environment: `name=value`, separated by commas. */
export function map<
  const O extends Options<Readonly<Record<string, string>>> & {
    readonly max: number;
    readonly secret?: boolean;
  },
>(key: TextRule, value: TextRule, options: O): Field<Value<Readonly<Record<string, string>>, O>> {
  return field<Value<Readonly<Record<string, string>>, O>, "">(options, {
    allowed: `table of at most ${options.max}, each key ${key.name}, each value ${value.name}`,
    fallback: options.default === undefined ? undefined : { ...options.default },
    unit: "",
    secret: options.secret ?? false,
    read(raw) {
      if (!isTable(raw)) return { problem: "is not a table" };
      const entries = Object.entries(raw);
      if (entries.length > options.max) return { problem: `has ${entries.length} entries` };
      const values: [string, string][] = [];
      for (const [name, entry] of entries) {
        const wrongName = problemOf(key.read(name));
        if (wrongName !== undefined)
          return { ...wrongName, problem: `has the key ${show(name)}, which ${wrongName.problem}` };
        const wrong =
          typeof entry === "string" ? problemOf(value.read(entry)) : { problem: "is not a string" };
        if (wrong !== undefined)
          return { ...wrong, problem: `has under ${show(name)} a value that ${wrong.problem}` };
        if (typeof entry === "string") values.push([name, entry]);
      }
      return { value: Object.fromEntries(values) };
    },
    fromText: pairsFromText,
  });
}

/** Whether TOML gave a table. */
export function isTable(raw: unknown): raw is { [key: string]: TomlValue } {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw) && !(raw instanceof Date);
}

/** A value in messages: one line, bounded, without control characters or the credentials of a URL. */
export function show(raw: TomlValue): string {
  if (typeof raw === "string") {
    const safe = raw.replace(/\/\/[^/@]*@/g, "//…@");
    return JSON.stringify(safe.length > 80 ? `${safe.slice(0, 80)}…` : safe);
  }
  if (typeof raw === "bigint" || typeof raw === "number" || typeof raw === "boolean") return String(raw);
  if (Array.isArray(raw)) return `an array of ${raw.length}`;
  return isTable(raw) ? "a table" : "a date or time";
}

function problemOf(reading: Reading<unknown>): Problem | undefined {
  return "problem" in reading ? reading : undefined;
}

function within(value: number, { min, max }: Bounds): Reading<number> {
  if (value < min) return { problem: "is too small" };
  return value <= max ? { value } : { problem: "is too large" };
}

/** Undefined if it is no integer at all; 1.0 is none. */
function readInteger(raw: TomlValue, bounds: Bounds): Reading<number> | undefined {
  if (typeof raw !== "bigint") return undefined;
  const isExact = raw >= Number.MIN_SAFE_INTEGER && raw <= Number.MAX_SAFE_INTEGER;
  return isExact ? within(Number(raw), bounds) : { problem: "is beyond 2^53" };
}

function integerFromText(given: string): TomlValue {
  return /^[+-]?\d{1,20}$/.test(given) ? BigInt(given.replace(/^\+/, "")) : given;
}

function pairsFromText(given: string): TomlValue {
  if (given === "") return {};
  const pairs = given.split(",").map((pair) => /^\s*([^=]+)=(.*)$/s.exec(pair));
  if (pairs.some((pair) => pair === null)) return given;
  return Object.fromEntries(pairs.map((pair) => [pair?.[1] ?? "", pair?.[2] ?? ""]));
}
