// Signals by the names that people know them by: the kernel's, with and without SIG, and the real-time ones counted from
// both ends as kill(1) does.

import { constants } from "node:os";
import { invalidField } from "../errors.ts";

const most = 64;
/** The C library keeps those before it to itself. */
const firstRealTime = 34;

/** @throws SandboxdError INVALID_FIELD. */
export function signalOf(text: string): number {
  const number = /^[0-9]{1,2}$/.test(text) ? Number(text) : numberOf(text.toUpperCase().replace(/^SIG/, ""));
  if (number !== undefined && number >= 1 && number <= most) return number;
  throw invalidField(
    "signal",
    `"${text}" is no signal`,
    'a name as "SIGTERM" or "TERM", or a number from 1 to 64',
  );
}

function numberOf(name: string): number | undefined {
  const [, end, sign, distance] = /^RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?$/.exec(name) ?? [];
  if (end !== undefined) {
    const steps = sign === undefined ? 0 : Number(`${sign}${distance}`);
    const number = (end === "MIN" ? firstRealTime : most) + steps;
    return number >= firstRealTime ? number : undefined;
  }
  const known: Readonly<Record<string, number>> = constants.signals;
  return Object.hasOwn(known, `SIG${name}`) ? known[`SIG${name}`] : undefined;
}
