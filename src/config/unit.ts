// How sizes and durations are written in the configuration, and back.

const sizeUnits = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const;

const durationUnits = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1_000, ms: 1 } as const;

/** Bytes of "512MiB" or "65536B": one whole number and a binary unit. Undefined if it is anything else. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,16})(B|KiB|MiB|GiB|TiB)$/.exec(text) ?? [];
  if (digits === undefined || unit === undefined) return undefined;
  const bytes = Number(digits) * sizeUnits[unit as keyof typeof sizeUnits];
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** The shortest exact way to write a number of bytes: 536870912 is "512MiB". */
export function formatSize(bytes: number): string {
  const units = Object.entries(sizeUnits).reverse();
  const [unit, factor] = units.find(([, size]) => bytes >= size && bytes % size === 0) ?? ["B", 1];
  return `${bytes / factor}${unit}`;
}

/**
 * Milliseconds of "500ms", "10s" or "1h30m": whole numbers, each unit at most once, the largest first.
 * Undefined if it is anything else.
 */
export function parseDuration(text: string): number | undefined {
  const parts =
    /^(?:(\d{1,12})d)?(?:(\d{1,12})h)?(?:(\d{1,12})m(?!s))?(?:(\d{1,12})s)?(?:(\d{1,15})ms)?$/.exec(text);
  if (parts === null || text === "") return undefined;
  const milliseconds = Object.values(durationUnits).reduce(
    (sum, factor, index) => sum + Number(parts[index + 1] ?? 0) * factor,
    0,
  );
  return Number.isSafeInteger(milliseconds) ? milliseconds : undefined;
}

/** The way to write a duration that `parseDuration` reads back: 5400000 is "1h30m". Takes whole milliseconds. */
export function formatDuration(milliseconds: number): string {
  let rest = milliseconds;
  let text = "";
  for (const [unit, factor] of Object.entries(durationUnits)) {
    const count = Math.floor(rest / factor);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * factor;
  }
  return text === "" ? "0s" : text;
}
