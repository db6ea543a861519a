// Whether somebody set the wall clock: it runs beside the steady one, and between two looks neither gains on the other.

/** What a look remembers for the next. */
export interface ClockLook {
  /** The wall clock less the steady one. Unit: milliseconds. */
  readonly offsetMs: number;
  /** When it was last found set, and by how much. Steady time; undefined if never. */
  readonly changed?: { readonly atMs: number; readonly byMs: number };
}

/** NTP slews by at most 0.5 ms a second (adjtimex(2)): what is more than this between two looks is a step. */
const mostDriftMs = 3_000;
/** How long it is told. */
const toldForMs = 600_000;

export function lookAtClock(before: ClockLook | undefined, wallMs: number, steadyMs: number): ClockLook {
  const offsetMs = wallMs - steadyMs;
  const byMs = before === undefined ? 0 : offsetMs - before.offsetMs;
  if (Math.abs(byMs) > mostDriftMs) return { offsetMs, changed: { atMs: steadyMs, byMs } };
  return { ...before, offsetMs };
}

/** In words; undefined once it is long enough ago. */
export function clockChange({ changed }: ClockLook, steadyMs: number): string | undefined {
  if (changed === undefined || steadyMs - changed.atMs >= toldForMs) return undefined;
  const { byMs } = changed;
  return `the wall clock was set ${byMs > 0 ? "forward" : "back"} by ${Math.round(Math.abs(byMs) / 1_000)} s`;
}
