// Values as TOML writes them: what is printed is what a file may contain.

import type { TomlValue } from "smol-toml";
import { isTable } from "./field.ts";

/** One line of TOML for a value that came from TOML. */
export function literal(raw: TomlValue): string {
  if (typeof raw === "string") return quote(raw);
  if (typeof raw === "bigint" || typeof raw === "number" || typeof raw === "boolean") return String(raw);
  if (Array.isArray(raw)) return `[${raw.map(literal).join(", ")}]`;
  if (!isTable(raw)) return raw.toString();
  const pairs = Object.entries(raw).map(([key, value]) => `${quote(key)} = ${literal(value)}`);
  return pairs.length === 0 ? "{}" : `{ ${pairs.join(", ")} }`;
}

/** The same table with every value hidden. */
export function hidden(raw: TomlValue): TomlValue {
  if (!isTable(raw)) return "[redacted]";
  return Object.fromEntries(Object.keys(raw).map((key) => [key, "[redacted]"]));
}

/** JSON's escapes are TOML's, but for DEL, which JSON leaves as it is. */
function quote(text: string): string {
  return JSON.stringify(text).replaceAll("\x7f", "\\u007f");
}
