// The keys that leave a process running: found in what is typed, and never sent on.

import { UsageError } from "../arguments.ts";

export const defaultDetachKeys = "ctrl-p,ctrl-q";

/** "ctrl-p,ctrl-q" or "a,b" as bytes, as the Docker CLI reads them; none for "". @throws UsageError */
export function parseDetachKeys(text: string): Uint8Array {
  if (text === "") return new Uint8Array();
  return Uint8Array.from(text.split(","), (word) => {
    const letter = /^ctrl-([a-z@[\\\]^_])$/i.exec(word)?.[1];
    if (letter !== undefined) return letter.toUpperCase().charCodeAt(0) & 0x1f;
    if (/^[\x20-\x7e]$/.test(word)) return word.charCodeAt(0);
    throw new UsageError(`--detach-keys ${JSON.stringify(text)}: expected keys, as ctrl-p,ctrl-q`);
  });
}

export interface DetachFilter {
  /** What of the input is to be sent, and whether the keys were typed in it. What may be their beginning is held until it is known. */
  push(input: Uint8Array): { readonly passed: Uint8Array; readonly detached: boolean };
}

export function createDetachFilter(keys: Uint8Array): DetachFilter {
  let matched = 0;
  return {
    push(input) {
      if (keys.length === 0) return { passed: input, detached: false };
      const passed: number[] = [];
      for (const byte of input) {
        while (matched > 0 && byte !== keys[matched]) {
          // the longest end of what is held, with this byte, that could still begin the keys
          const [first, held] = [keys[0] ?? 0, matched];
          passed.push(first);
          matched = longestBeginning(keys, keys.subarray(1, held));
          passed.push(...keys.subarray(1, held - matched));
        }
        if (byte !== keys[matched]) {
          passed.push(byte);
          continue;
        }
        matched += 1;
        if (matched === keys.length) {
          matched = 0;
          return { passed: Uint8Array.from(passed), detached: true };
        }
      }
      return { passed: Uint8Array.from(passed), detached: false };
    },
  };
}

/** How much of the end of `held` the keys begin with. */
function longestBeginning(keys: Uint8Array, held: Uint8Array): number {
  for (let length = held.length; length > 0; length -= 1)
    if (held.subarray(held.length - length).every((byte, at) => byte === keys[at])) return length;
  return 0;
}
