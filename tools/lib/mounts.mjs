// Mounts of a run: what a daemon mounts has to be seen by an engine that has mounts of its own, and to be gone at the end.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** Paths where something is mounted, at a directory or below it, in the order in which it was. */
function mountsIn(directory) {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((mount) => mount === directory || mount.startsWith(`${directory}/`));
}

function run(program, args) {
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (error) throw error;
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr.trim()}`);
}

/**
 * Has what is mounted below a directory from now on seen by engines that are started from now on: on a systemd host everything
 * is, in a container or a small virtual machine nothing. Done already is success.
 */
export function shareMounts(directory) {
  if (mountsIn(directory).includes(directory)) return;
  run("mount", ["--bind", directory, directory]);
  run("mount", ["--make-shared", directory]);
}

/**
 * Unmounts whatever is mounted at a directory or below it, the last first: one may be on another. A program that a killed daemon had
 * started may be in one for a moment longer.
 */
export async function unmountIn(directory) {
  for (const mount of mountsIn(directory).toReversed()) {
    // a daemon that was killed may have left it frozen, and then it would never go
    spawnSync("fsfreeze", ["--unfreeze", mount], { stdio: "ignore" });
    for (let round = 0; ; round += 1) {
      try {
        run("umount", [mount]);
        break;
      } catch (error) {
        if (round === 100) throw error;
        await sleep(50);
      }
    }
  }
}
