// The reference in docs/configuration.md, made from the schema.

import type { Fields } from "../../../src/config/field.ts";
import { literal } from "../../../src/config/literal.ts";
import { schema } from "../../../src/config/schema.ts";

/** Sections as headings, each with a table of its keys. */
export function renderReference(): string {
  return sections(schema.fields, [], "").join("\n");
}

function sections(fields: Fields, path: readonly string[], meaning: string): readonly string[] {
  const rows = Object.entries(fields).flatMap(([key, node]) => {
    if (node.kind !== "field") return [];
    const fallback = node.fallback === undefined ? "" : `\`${literal(node.fallback)}\``;
    return [`| \`${key}\` | ${cell(node.allowed)} | ${cell(fallback)} | ${cell(node.meaning)} |`];
  });
  const header = ["| key | allowed | default | meaning |", "| --- | --- | --- | --- |"];
  const table = rows.length === 0 ? [] : [`### [${path.join(".")}]`, "", meaning, "", ...header, ...rows, ""];
  const inner = Object.entries(fields).flatMap(([key, node]) => {
    if (node.kind === "field") return [];
    if (node.kind === "section") return sections(node.fields, [...path, key], node.meaning);
    return sections(node.item.fields, [...path, key, "NAME"], node.meaning);
  });
  return [...table, ...inner];
}

const cell = (text: string): string => text.replaceAll("|", "\\|");
