// Where in a sandbox a mount may be: the same rule for requests and for templates.

/** What the engine and the daemon mount there themselves, with what is below. */
const taken = ["/tmp", "/dev", "/proc", "/sys", "/.sandboxd"] as const;

/** Where the engine puts files of its own, so that they cannot be something else as a whole. */
const shared = ["/etc", "/sbin"] as const;

const mostBytes = 1_024;

/** Why nothing can be mounted at a path; undefined if something can. Follows the path in a sentence. */
export function targetProblem(path: string): string | undefined {
  const parts = path.split("/").slice(1);
  const isPlain = parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (!/^\/[A-Za-z0-9._/-]+$/.test(path) || !isPlain || Buffer.byteLength(path) > mostBytes) {
    return 'must be an absolute path of letters, digits, ".", "_" and "-", without "." and ".." and a "/" at its end';
  }
  const here = taken.find((one) => isWithin(path, one));
  if (here !== undefined) return `lies in ${here}, which is always there`;
  return shared.some((one) => one === path)
    ? "is where the engine puts files of its own: take a directory in it"
    : undefined;
}

/** Whether one is the other, or above it. */
export function overlap(a: string, b: string): boolean {
  return isWithin(a, b) || isWithin(b, a);
}

/** Whether a path is a directory or below it. */
export function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}
