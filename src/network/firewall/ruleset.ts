// The firewall as scripts for nft: both tables anew, and what comes into and goes out of their sets.

import { bridgeTable } from "./bridge-table.ts";
import { type Element, elementsOf } from "./elements.ts";
import type { State } from "./state.ts";
import { inetTable, signalChain, type TableSettings } from "./tables.ts";

export interface TableOptions extends TableSettings {
  /** Of both tables. */
  readonly table: string;
  /** Blocks that the subnets of bridges are cut from. */
  readonly pools: readonly string[];
}

/** Both tables anew, in the place of what was there, in one transaction. */
export function wholeTables(state: State, { table, pools, ...settings }: TableOptions): string {
  const fresh = ["inet", "bridge"].map(
    (family) => `table ${family} ${table} {\n}\ndelete table ${family} ${table}`,
  );
  const elements = commands("add", table, elementsOf(state, pools));
  return `${[...fresh, inetTable(table, settings), bridgeTable(table), ...elements].join("\n")}\n`;
}

/** How many rules both tables have. */
export const ruleCount = [inetTable("x", { questionsPerSecond: 1, sniPort: 1 }), bridgeTable("x")]
  .flatMap((text) => text.split(/^ {2}(?=chain)/m).slice(1))
  .flatMap((chain) => chain.split("\n").slice(1))
  .filter(
    (line) =>
      line.startsWith("    ") && !line.startsWith("    type filter") && !line.startsWith("    type nat"),
  ).length;

/** What leads from one state to another, in one transaction; empty if nothing does. */
export function transition(
  { gone, come }: { readonly gone: readonly Element[]; readonly come: readonly Element[] },
  table: string,
): string {
  return [...commands("delete", table, gone), ...commands("add", table, come)]
    .map((command) => `${command}\n`)
    .join("");
}

/** Makes a transaction tell that it is done; see `signalChain`. */
export function signal(table: string, token: string): string {
  return `flush chain inet ${table} ${signalChain}\nadd rule inet ${table} ${signalChain} return comment "${token}"\n`;
}

function commands(verb: "add" | "delete", table: string, elements: readonly Element[]): readonly string[] {
  const bySet = Map.groupBy(elements, ({ set }) => set);
  return [...bySet].flatMap(([set, members]) => {
    const [family, name] = set.split(" ");
    const command = (verb: "add" | "delete", texts: readonly string[]) =>
      `${verb} element ${family} ${table} ${name} {\n${texts.join(",\n")}\n}`;
    if (verb === "add")
      return [
        command(
          verb,
          members.map(({ key, rest }) => `${key}${rest}`),
        ),
      ];
    // it takes an element away by its key alone
    const keys = members.map(({ key }) => key);
    const range = rangeIn[set];
    return range === undefined
      ? [command(verb, keys)]
      : [command("add", [range]), command(verb, [range, ...keys])];
  });
}

/**
 * A range of nobody's for each set that has ranges and marks: nft up to 1.0.6 at least does not find an element to take away from those
 * unless there is a range among them.
 */
const rangeIn: Readonly<Record<string, string>> = {
  "inet ports": "0 . tcp . 0-1",
  "inet allowed": "0 . 0.0.0.0/31",
  "inet refused": "0 . 0.0.0.0/31",
};
