// Tables as the Docker CLI prints them: a line of titles, columns aligned by spaces, the last one as long as it is.

import { printable } from "./text.ts";

/** Rows of cells. What a terminal would act on is escaped. */
export function tableText(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [titles, ...rows].map((row) => row.map(printable));
  const widths = titles.map((_, column) => Math.max(...lines.map((row) => widthOf(row[column] ?? ""))));
  return lines
    .map((row) =>
      row
        .map((cell, column) =>
          column === row.length - 1 ? cell : cell + " ".repeat((widths[column] ?? 0) - widthOf(cell)),
        )
        .join("   ")
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}

/** Columns of a terminal, nearly: the scripts that take two for each character. */
function widthOf(text: string): number {
  let width = 0;
  for (const character of text) {
    if (/\p{M}/u.test(character)) continue;
    width +=
      /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u.test(
        character,
      )
        ? 2
        : 1;
  }
  return width;
}

/** "key: value" lines, values aligned. */
export function factsText(facts: readonly (readonly [key: string, value: string])[]): string {
  const width = Math.max(...facts.map(([key]) => key.length)) + 2;
  return facts.map(([key, value]) => `${`${key}:`.padEnd(width)}${printable(value)}\n`).join("");
}
