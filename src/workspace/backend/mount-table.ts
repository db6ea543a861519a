// What is mounted where, as the kernel tells it: proc_pid_mountinfo(5).

import { readFile, realpath } from "node:fs/promises";
import { dirname, resolve } from "node:path";

export interface Mount {
  /** Where it is mounted. */
  readonly path: string;
  /** What of its file system is seen there: `/` unless it is a bind mount, or a subvolume. */
  readonly root: string;
  readonly type: string;
  /** A device, most often. */
  readonly source: string;
  /** Of this mount: `nosuid`, `nodev`, `ro` and their like. */
  readonly options: readonly string[];
  /** Of the file system, wherever it is mounted: `prjquota`, `subvolid=5` and their like. */
  readonly superOptions: readonly string[];
}

/** In the order in which they were mounted: of two on one path, the later one is seen. */
export async function mounts(): Promise<readonly Mount[]> {
  return parseMounts(await readFile("/proc/self/mountinfo", "utf8"));
}

export function parseMounts(text: string): readonly Mount[] {
  return text.split("\n").flatMap((line) => parse(line) ?? []);
}

/** The mount that a path is on. The path has no links in it. */
export function mountOf(table: readonly Mount[], path: string): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of table) {
    if (isWithin(path, mount.path) && mount.path.length >= (found?.path.length ?? 0)) found = mount;
  }
  return found;
}

/** The closest directory that is there, without links: the path itself, or one above it. */
export async function nearest(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await realpath(absolute);
  } catch (error) {
    const isAbsent = error instanceof Error && "code" in error && error.code === "ENOENT";
    if (!isAbsent || absolute === "/") throw error;
    return nearest(dirname(absolute));
  }
}

/** Whether a path is a directory, or below it. */
export function isWithin(path: string, directory: string): boolean {
  return directory === "/" || path === directory || path.startsWith(`${directory}/`);
}

/** The optional fields in the middle end with a dash. */
function parse(line: string): Mount | undefined {
  const fields = line.split(" ");
  const dash = fields.indexOf("-", 6);
  const [, , , root, path, options] = fields;
  const [type, source, superOptions] = dash < 0 ? [] : fields.slice(dash + 1);
  if (root === undefined || path === undefined || options === undefined) return undefined;
  if (type === undefined || source === undefined) return undefined;
  return {
    path: decoded(path),
    root: decoded(root),
    type,
    source: decoded(source),
    options: options.split(","),
    superOptions: superOptions?.split(",") ?? [],
  };
}

/** The kernel writes blanks, line ends and backslashes as three octal digits. */
function decoded(text: string): string {
  if (!text.includes("\\")) return text;
  const bytes = Buffer.from(
    text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8))),
    "latin1",
  );
  return bytes.toString("utf8");
}
