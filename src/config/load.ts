// From file, environment and flags to one valid configuration, or to everything that is wrong with it.

import type { TomlValue } from "smol-toml";
import { type Violation, violationsOf } from "./check.ts";
import { type Config, nameOf } from "./config.ts";
import type { ConfigError, Source } from "./error.ts";
import { type Field, type Fields, show } from "./field.ts";
import { locate, parseConfig, readConfigFile } from "./file.ts";
import { type Given, givenByEnvironment, givenByFile, givenByFlags, type Layer } from "./given.ts";
import { hidden, literal } from "./literal.ts";
import { schema } from "./schema.ts";
import { tlsFileViolationsOf } from "./tls-file.ts";

export interface LoadOptions {
  /** A TOML file. Left out: none is read. */
  readonly file?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Each "section.key=value". */
  readonly flags: readonly string[];
  /** Whether what is only fit for development is allowed: plain TCP, schedulers without TLS. */
  readonly dev: boolean;
}

/** One key as it came out. */
export interface Setting {
  readonly key: string;
  /** The value as TOML, secrets hidden. Undefined: not set, and without a default. */
  readonly literal: string | undefined;
  readonly source: Source;
}

export type Loaded =
  | { readonly config: Config; readonly settings: readonly Setting[] }
  | { readonly errors: readonly ConfigError[] };

/**
 * Loads and checks a configuration. Flags win over the environment, it over the file, and that over the defaults.
 * All errors come at once, in a file with syntax errors all but those that need its values. Reads the file and the
 * files that it names for TLS; never throws.
 */
export function loadConfig(options: LoadOptions): Loaded {
  const file = loadFile(options.file);
  const layers = [file.layer, givenByEnvironment(options.env), givenByFlags(options.flags)];
  const values = new Map(layers.flatMap((layer) => [...layer.values]));
  const names = new Map<string, Set<string>>();
  for (const [key, given] of layers.flatMap((layer) => [...layer.names])) {
    names.set(key, new Set([...(names.get(key) ?? []), ...given]));
  }
  const reader: Reader = { values, names, settings: [], errors: [] };
  // the schema gives both the type and, at run time, the shape
  const config = readSection(schema.fields, [], reader) as Config;
  const invalid = new Set(reader.errors.map(({ key }) => key));
  const violations = file.isBroken ? [] : [...violationsOf(config, options), ...tlsFileViolationsOf(config)];
  const errors = [
    ...layers.flatMap((layer) => layer.errors),
    ...reader.errors,
    ...violations
      .filter(({ keys }) => !keys.some((key) => invalid.has(key)))
      .map((violation) => errorOf(violation, values)),
  ];
  return errors.length === 0
    ? { config, settings: reader.settings }
    : { errors: withLines(errors, file.text) };
}

interface Reader {
  readonly values: ReadonlyMap<string, Given>;
  readonly names: ReadonlyMap<string, ReadonlySet<string>>;
  readonly settings: Setting[];
  readonly errors: ConfigError[];
}

interface LoadedFile {
  readonly layer: Layer;
  readonly text: string;
  readonly isBroken: boolean;
}

function loadFile(file: string | undefined): LoadedFile {
  const nothing = { values: new Map(), names: new Map() };
  if (file === undefined) return { layer: { ...nothing, errors: [] }, text: "", isBroken: false };
  const read = readConfigFile(file);
  const parsed = "errors" in read ? read : parseConfig(read.text, file);
  if ("errors" in parsed) return { layer: { ...nothing, errors: parsed.errors }, text: "", isBroken: true };
  return {
    layer: givenByFile(parsed.document, file),
    text: "text" in read ? read.text : "",
    isBroken: false,
  };
}

function readSection(
  fields: Fields,
  path: readonly string[],
  reader: Reader,
): Readonly<Record<string, unknown>> {
  const entries = Object.entries(fields).map(([key, node]): [string, unknown] => {
    const here = [...path, key];
    if (node.kind === "field") return [nameOf(key, node.unit), readField(node, here.join("."), reader)];
    if (node.kind === "section") return [nameOf(key, ""), readSection(node.fields, here, reader)];
    const items = [...(reader.names.get(here.join(".")) ?? [])];
    const sections = items.map((name) => [name, readSection(node.item.fields, [...here, name], reader)]);
    return [nameOf(key, ""), Object.fromEntries(sections)];
  });
  return Object.fromEntries(entries);
}

function readField(field: Field<unknown, string>, key: string, reader: Reader): unknown {
  const given = reader.values.get(key);
  const source: Source = given?.source ?? { kind: "default" };
  const raw = given?.raw ?? field.fallback;
  reader.settings.push({ key, literal: raw === undefined ? undefined : print(field, raw), source });
  if (raw === undefined) return undefined;
  const reading = field.read(raw);
  if ("value" in reading) return reading.value;
  const { problem, hint } = reading;
  const value = field.secret ? "the value" : show(raw);
  const error = { source, key, problem: `${value} ${problem}`, allowed: field.allowed };
  reader.errors.push(hint === undefined ? error : { ...error, hint });
  // checks between keys go on with the default; those that ask for this key are left out
  const fallback = field.fallback === undefined ? undefined : field.read(field.fallback);
  return fallback !== undefined && "value" in fallback ? fallback.value : undefined;
}

function print(field: Field<unknown, string>, raw: TomlValue): string {
  return literal(field.secret ? hidden(raw) : raw);
}

/** The violation at the first of its keys that someone gave: a default is not what is to be changed. */
function errorOf({ keys, problem, hint }: Violation, values: ReadonlyMap<string, Given>): ConfigError {
  const key = keys.find((one) => values.has(one)) ?? keys[0];
  const source: Source = values.get(key)?.source ?? { kind: "default" };
  return { source, key, problem, ...(hint === undefined ? {} : { hint }) };
}

function withLines(errors: readonly ConfigError[], text: string): readonly ConfigError[] {
  const lacksLine = ({ source, key }: ConfigError) =>
    source.kind === "file" && source.line === undefined && key !== "";
  const lines = locate(
    text,
    errors.filter(lacksLine).map(({ key }) => key.split(".")),
  );
  return errors.map((error) => {
    const line = lines.get(error.key);
    if (!lacksLine(error) || error.source.kind !== "file" || line === undefined) return error;
    return { ...error, source: { ...error.source, line } };
  });
}
