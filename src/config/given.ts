// What was given, by whom: the file, the environment and the flags, each turned into values by key. Keys that the
// schema doesn't know are refused here.

import type { TomlTable, TomlValue } from "smol-toml";
import type { ConfigError, Source } from "./error.ts";
import { type Field, type Fields, isTable, type Node, show } from "./field.ts";
import { schema } from "./schema.ts";
import { nearest } from "./suggest.ts";

/** A value as TOML has it, under its key with its sections. */
export interface Given {
  readonly raw: TomlValue;
  readonly source: Source;
}

/** Values by key, and the names that tables of sections have, by the table's key. */
export interface Layer {
  readonly values: ReadonlyMap<string, Given>;
  readonly names: ReadonlyMap<string, ReadonlySet<string>>;
  readonly errors: readonly ConfigError[];
}

interface OpenLayer extends Layer {
  readonly values: Map<string, Given>;
  readonly names: Map<string, Set<string>>;
  readonly errors: ConfigError[];
}

/** The harness of the tests keeps its own variables under this prefix. */
const ignoredPrefix = "SANDBOXD_TEST_";

/** Values of a parsed file. */
export function givenByFile(document: TomlTable, file: string): Layer {
  const layer = openLayer();
  walk(schema.fields, document, [], { kind: "file", file }, layer);
  return layer;
}

/** Values of variables: SANDBOXD_ENGINE_SOCKET is `engine.socket`. Other names under the prefix are refused. */
export function givenByEnvironment(env: Readonly<Record<string, string | undefined>>): Layer {
  const layer = openLayer();
  const known = new Map(leavesOf(schema.fields, []).map((leaf) => [environmentName(leaf.path), leaf]));
  for (const [name, text] of Object.entries(env)) {
    if (text === undefined || !name.startsWith("SANDBOXD_") || name.startsWith(ignoredPrefix)) continue;
    const source: Source = { kind: "environment", name };
    const leaf = known.get(name);
    if (leaf === undefined) {
      const near = nearest(name, known.keys());
      layer.errors.push({
        source,
        key: "",
        problem: "is the name of no key",
        ...meant(near, fileOnly(name)),
      });
    } else {
      layer.values.set(leaf.path.join("."), { raw: leaf.field.fromText(text), source });
    }
  }
  return layer;
}

/** Values of flags, each "section.key=value". The last one of a key wins. */
export function givenByFlags(flags: readonly string[]): Layer {
  const layer = openLayer();
  for (const flag of flags) {
    const [, key, text] = /^([^=]+)=(.*)$/s.exec(flag) ?? [];
    if (key === undefined || text === undefined) {
      const source: Source = { kind: "flag", flag: "--set" };
      layer.errors.push({ source, key: "", problem: `${show(flag)} is not section.key=value` });
      continue;
    }
    setByPath(key, text, layer);
  }
  return layer;
}

/** The variable that gives a key. */
export function environmentName(path: readonly string[]): string {
  return `SANDBOXD_${path.join("_").toUpperCase()}`;
}

/** Every key that has a fixed name, in the order of the schema. */
export function leavesOf(
  fields: Fields,
  path: readonly string[],
): readonly { readonly path: readonly string[]; readonly field: Field<unknown, string> }[] {
  return Object.entries(fields).flatMap(([key, node]) => {
    const here = [...path, key];
    if (node.kind === "named") return [];
    return node.kind === "section" ? leavesOf(node.fields, here) : [{ path: here, field: node }];
  });
}

function openLayer(): OpenLayer {
  return { values: new Map(), names: new Map(), errors: [] };
}

function walk(
  fields: Fields,
  table: TomlTable,
  path: readonly string[],
  source: Source,
  layer: OpenLayer,
): void {
  for (const [key, raw] of Object.entries(table)) {
    const node = Object.hasOwn(fields, key) ? fields[key] : undefined;
    const here = [...path, key];
    if (node === undefined) {
      layer.errors.push(unknownKey(here, fields, source));
    } else if (node.kind === "field") {
      layer.values.set(here.join("."), { raw, source });
    } else if (!isTable(raw)) {
      layer.errors.push({ source, key: here.join("."), problem: `${show(raw)} is not a table` });
    } else if (node.kind === "section") {
      walk(node.fields, raw, here, source, layer);
    } else {
      for (const [name, item] of Object.entries(raw)) {
        const itemPath = [...here, name];
        if (!addName(node, here, name, source, layer)) continue;
        if (isTable(item)) walk(node.item.fields, item, itemPath, source, layer);
        else layer.errors.push({ source, key: itemPath.join("."), problem: `${show(item)} is not a table` });
      }
    }
  }
}

function setByPath(key: string, text: string, layer: OpenLayer): void {
  const source: Source = { kind: "flag", flag: `--set ${key}` };
  const path = key.split(".");
  let fields: Fields = schema.fields;
  let node: Node | undefined;
  for (let index = 0; index < path.length; index++) {
    const word = path[index] ?? "";
    node = Object.hasOwn(fields, word) ? fields[word] : undefined;
    if (node === undefined) {
      layer.errors.push(unknownKey(path.slice(0, index + 1), fields, source));
      return;
    }
    if (node.kind === "field") {
      if (index === path.length - 1) layer.values.set(key, { raw: node.fromText(text), source });
      else
        layer.errors.push({
          source,
          key,
          problem: `goes on after the key ${path.slice(0, index + 1).join(".")}`,
        });
      return;
    }
    if (node.kind === "named" && index + 1 < path.length) {
      const name = path[index + 1] ?? "";
      if (!addName(node, path.slice(0, index + 1), name, source, layer)) return;
      fields = node.item.fields;
      index++;
    } else if (node.kind === "section") {
      fields = node.fields;
    }
  }
  layer.errors.push({
    source,
    key,
    problem: "is a section, not a key",
    hint: "write --set section.key=value",
  });
}

/** Notes a name of the operator's choice; false if it may not be one. */
function addName(
  node: Node & { kind: "named" },
  path: readonly string[],
  name: string,
  source: Source,
  layer: OpenLayer,
): boolean {
  const key = path.join(".");
  if (!node.namePattern.test(name)) {
    const hint = "lower-case letters, digits and hyphens, at most 63, a letter or digit at both ends";
    layer.errors.push({ source, key, problem: `${show(name)} is not a name`, hint });
    return false;
  }
  layer.names.set(key, (layer.names.get(key) ?? new Set()).add(name));
  return true;
}

function unknownKey(path: readonly string[], siblings: Fields, source: Source): ConfigError {
  const word = path.at(-1) ?? "";
  const key = path.map((part) => (/^[A-Za-z0-9_-]{1,80}$/.test(part) ? part : show(part))).join(".");
  const near = nearest(word, Object.keys(siblings));
  const elsewhere = leavesOf(schema.fields, [])
    .find((leaf) => leaf.path.at(-1) === word)
    ?.path.join(".");
  return {
    source,
    key,
    problem: "is unknown",
    ...meant(near ?? elsewhere, `known here: ${Object.keys(siblings).join(", ")}`),
  };
}

function meant(near: string | undefined, otherwise: string | undefined): { readonly hint?: string } {
  if (near !== undefined) return { hint: `did you mean "${near}"?` };
  return otherwise === undefined ? {} : { hint: otherwise };
}

function fileOnly(name: string): string | undefined {
  return name.startsWith("SANDBOXD_TEMPLATES_") ? "templates are given in the file or with --set" : undefined;
}
