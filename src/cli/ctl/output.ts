// How lists are shown: as a table for people, as one JSON object a line for programs, or as ids alone.

import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import { type Arguments, type OptionSpecs, optionValue, UsageError } from "./arguments.ts";
import type { Context } from "./context.ts";
import { tableText } from "./table.ts";
import { printable, printableJson } from "./text.ts";

/** Of every command that lists. */
export const listOptions = {
  output: {
    kind: "value",
    short: "o",
    value: "table|json",
    help: "Format: a table, or one JSON object a line",
  },
  quiet: { kind: "flag", short: "q", help: "Print ids alone" },
} as const satisfies OptionSpecs;

export interface List<Desc extends DescMessage> {
  readonly schema: Desc;
  readonly items: readonly MessageShape<Desc>[];
  readonly id: (item: MessageShape<Desc>) => string;
  readonly titles: readonly string[];
  readonly row: (item: MessageShape<Desc>) => readonly string[];
}

export function printList<Desc extends DescMessage>(
  context: Context,
  args: Arguments,
  list: List<Desc>,
): void {
  const { schema, items, id, titles, row } = list;
  if (isJson(args)) for (const item of items) context.print(jsonLine(schema, item));
  else if (args.flags.has("quiet")) for (const item of items) context.print(`${printable(id(item))}\n`);
  else context.print(tableText(titles, items.map(row)));
}

/** @throws UsageError for a format that there is not. */
export function isJson(args: Arguments): boolean {
  const format = optionValue(args, "output") ?? "table";
  if (format !== "table" && format !== "json")
    throw new UsageError(`--output ${JSON.stringify(format)}: expected table or json`);
  return format === "json";
}

/** Field names and values as in the contract's JSON form. */
export function jsonLine<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): string {
  return `${printableJson(toJson(schema, message))}\n`;
}

/** As `docker inspect` prints them: one array, indented. */
export function jsonArray<Desc extends DescMessage>(
  schema: Desc,
  messages: readonly MessageShape<Desc>[],
): string {
  const values = messages.map((message) => toJson(schema, message));
  return `${printableJson(values, 2)}\n`;
}

/** A name of an enum for people: SANDBOX_STATE_BACKING_OFF, of BACKING_OFF, is "backing off". */
export function wordsOf(name: string | undefined): string {
  return (name ?? "unknown").toLowerCase().replaceAll("_", " ");
}

/** Every item of a list that comes in pages. */
export async function allPages<Item>(
  page: (pageToken: string) => Promise<{ readonly items: readonly Item[]; readonly nextPageToken: string }>,
): Promise<readonly Item[]> {
  const items: Item[] = [];
  for (let token = ""; ; ) {
    const answer = await page(token);
    items.push(...answer.items);
    if (answer.nextPageToken === "") return items;
    token = answer.nextPageToken;
  }
}
