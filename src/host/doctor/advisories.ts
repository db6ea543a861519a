// Published weaknesses of the programs below, by which a sandbox could get out or bring its host down, and the versions that
// mend them. Each release of the daemon brings the table up to date.

export type Program = "engine" | "containerd" | "runc";

interface Advisory {
  readonly ids: readonly string[];
  readonly program: Program;
  /** The first version of each line that is mended; lines newer than all of them never had it. */
  readonly fixedIn: readonly string[];
}

/** When the table was last compared with what was published. */
export const advisoriesDate = "2026-11";

const advisories: readonly Advisory[] = [
  { ids: ["CVE-2024-21626"], program: "runc", fixedIn: ["1.1.12"] },
  {
    ids: ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"],
    program: "runc",
    fixedIn: ["1.2.8", "1.3.3", "1.4.0-rc.3"],
  },
  { ids: ["CVE-2026-41579"], program: "runc", fixedIn: ["1.3.6", "1.4.3", "1.5.0-rc.3"] },
  {
    ids: ["CVE-2024-23650", "CVE-2024-23651", "CVE-2024-23652", "CVE-2024-23653"],
    program: "engine",
    fixedIn: ["25.0.2"],
  },
  { ids: ["CVE-2026-34040"], program: "engine", fixedIn: ["29.3.1"] },
  { ids: ["CVE-2026-41567"], program: "engine", fixedIn: ["29.5.1"] },
  { ids: ["CVE-2024-40635"], program: "containerd", fixedIn: ["1.6.38", "1.7.27", "2.0.4"] },
  { ids: ["CVE-2025-64329"], program: "containerd", fixedIn: ["1.7.29", "2.0.7", "2.1.5", "2.2.0"] },
  {
    ids: ["CVE-2026-53488"],
    program: "containerd",
    fixedIn: ["1.7.33", "2.0.10", "2.1.9", "2.2.5", "2.3.2"],
  },
];

/** Of a version as the program tells it. @throws RangeError for what is no version. */
export function advisoriesOf(program: Program, version: string): readonly string[] {
  const own = parsed(version);
  return advisories
    .filter((one) => one.program === program && !isMended(own, one.fixedIn.map(parsed)))
    .flatMap(({ ids }) => ids);
}

/** Distributions mend old versions without changing their number, and mark them ("1.1.5+ds1", "27.5.1-0ubuntu3", "1.1.12-3.el9"). */
export function isOfDistribution(version: string): boolean {
  return /[+~-](ds|dfsg|deb|\d*ubuntu)|\.(el|fc)\d/i.test(version);
}

interface Version {
  readonly numbers: readonly [major: number, minor: number, patch: number];
  /** Of a candidate for a release: its number; of a release: more than any. */
  readonly candidate: number;
}

function parsed(text: string): Version {
  const [, major, minor, patch, candidate] = /^v?(\d+)\.(\d+)\.(\d+)(?:-rc\.?(\d+))?/.exec(text) ?? [];
  if (major === undefined) throw new RangeError(`"${text}" is not a version`);
  return {
    numbers: [Number(major), Number(minor), Number(patch)],
    candidate: candidate === undefined ? Number.POSITIVE_INFINITY : Number(candidate),
  };
}

function isMended(own: Version, fixes: readonly Version[]): boolean {
  const sameLine = fixes.find(
    ({ numbers }) => numbers[0] === own.numbers[0] && numbers[1] === own.numbers[1],
  );
  if (sameLine !== undefined) return compare(own, sameLine) >= 0;
  return fixes.every((fix) => compare(own, fix) > 0);
}

function compare(a: Version, b: Version): number {
  for (const at of [0, 1, 2] as const) {
    if (a.numbers[at] !== b.numbers[at]) return a.numbers[at] - b.numbers[at];
  }
  return a.candidate === b.candidate ? 0 : a.candidate < b.candidate ? -1 : 1;
}
