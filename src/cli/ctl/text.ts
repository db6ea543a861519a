// Text that a terminal can be shown. Names and messages come from tenants and from inside of sandboxes: what a terminal would act on,
// or what turns the direction of writing, is shown as an escape.

/** Control and format characters, lone surrogates, private and unassigned ones; line and paragraph separators. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** One line. */
export function printable(text: string): string {
  return text.replace(unprintable, escapeOf);
}

/** Lines stay lines. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** JSON keeps C1 controls and the like as they are; a terminal acts on some. The escaped text means the same. */
export function printableJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, undefined, indent)
    .split("\n")
    .map((line) => line.replace(unprintable, (found) => utf16EscapeOf(found)))
    .join("\n");
}

function escapeOf(character: string): string {
  switch (character) {
    case "\n":
      return "\\n";
    case "\t":
      return "\\t";
    case "\r":
      return "\\r";
    default: {
      const code = character.codePointAt(0) ?? 0;
      return code < 0x100 ? `\\x${hex(code, 2)}` : `\\u{${hex(code, 1)}}`;
    }
  }
}

function utf16EscapeOf(character: string): string {
  return Array.from({ length: character.length }, (_, at) => `\\u${hex(character.charCodeAt(at), 4)}`).join(
    "",
  );
}

const hex = (code: number, digits: number): string => code.toString(16).padStart(digits, "0");

/** So many columns at most; the last is "…" where it was cut. */
export function shortened(text: string, most: number): string {
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, Math.max(0, most - 1)).join("")}…`;
}
