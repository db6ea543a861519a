// File systems for tests, in a file of their own: made, mounted and gone with the test. What a test that was killed has left is
// unmounted at the end of the run.

import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface FileSystem {
  /** Where it is mounted. */
  readonly directory: string;
  /** Everything on it goes. Nothing may use it any more. */
  close(): void;
}

const programs = ["mkfs.ext4", "mkfs.btrfs", "btrfs", "fsfreeze"];

/** Why no test with file systems of its own can run here; undefined when one can. For `describe.skipIf`. */
export const fileSystemObstacle = obstacle();

/** Makes one in a file that takes no more room than what is written to it. Close it in every case. */
export function openFileSystem(
  type: "btrfs" | "ext4",
  bytes = 1024 ** 3,
  options: readonly string[] = [],
): FileSystem {
  const base = mkdtempSync(join(tmpdir(), `${type}-`));
  const [image, directory] = [join(base, "image"), join(base, "root")];
  const close = () => {
    unmountBelow(base);
    rmSync(base, { recursive: true, force: true });
  };
  try {
    mkdirSync(directory);
    writeFileSync(image, "");
    truncateSync(image, bytes);
    execFileSync(`mkfs.${type}`, ["-q", image], { stdio: "pipe" });
    execFileSync("mount", ["-o", ["loop", ...options].join(","), image, directory], { stdio: "pipe" });
  } catch (error) {
    close();
    throw error;
  }
  return { directory, close };
}

/** Where something is mounted at or below a directory, in the order in which it was. */
export function mountsBelow(directory: string): readonly string[] {
  const paths = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "");
  return paths.filter((path) => path === directory || path.startsWith(`${directory}/`));
}

/** Files below a directory that a loop device is made of. */
export function loopFilesBelow(directory: string): readonly string[] {
  return readdirSync("/sys/block").flatMap((name) => {
    const file = `/sys/block/${name}/loop/backing_file`;
    const path = existsSync(file) ? readFileSync(file, "utf8").trim() : "";
    return path.startsWith(`${directory}/`) ? [path] : [];
  });
}

/** The last first: one may be on another. */
export function unmountBelow(directory: string): void {
  for (const path of mountsBelow(directory).toReversed()) execFileSync("umount", [path], { stdio: "pipe" });
}

function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return "no file system of its own: run as root";
  if (!existsSync("/dev/loop-control")) return "the machine has no loop devices";
  const directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  const missing = programs.find((program) => !directories.some((one) => existsSync(join(one, program))));
  return missing === undefined ? undefined : `${missing} is not installed: run by \`npm test\``;
}
