// A small file system that a test can fill up. It is mounted in a namespace that only one process holds, so it is gone with
// that process, however the test ends.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { engineMark } from "../../tools/lib/leftovers.mjs";

export interface SmallDisk {
  /** Where it is, for programs begun by `launcher`. */
  readonly directory: string;
  /** Begins a program that sees it, see `DaemonOptions.launcher`. */
  readonly launcher: readonly string[];
  /** Uses up what is free. */
  fill(): void;
  /** Gives back what `fill` used. */
  free(): void;
  close(): Promise<void>;
}

/** Mounts one. Close it in every case. */
export async function openSmallDisk(size = "2m"): Promise<SmallDisk> {
  const directory = mkdtempSync(join(tmpdir(), "disk-"));
  const script = `mount -t tmpfs -o size=${size} tmpfs ${directory} && echo ready && exec sleep infinity`;
  const holder = spawn("unshare", ["--mount", "--propagation", "slave", "sh", "-c", script], {
    stdio: ["ignore", "pipe", "inherit"],
    // without its mark it would outlive a run that is killed
    env: { ...process.env, [engineMark]: process.env[engineMark] ?? `sandboxd-test-${process.pid}` },
  });
  const ended = new Promise<void>((resolve) => holder.once("close", () => resolve()));
  const close = async () => {
    holder.kill("SIGKILL");
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  const isMounted = await Promise.race([
    new Promise<boolean>((resolve) => holder.stdout.once("data", () => resolve(true))),
    ended.then(() => false),
  ]);
  if (!isMounted) {
    await close();
    throw new Error("no file system could be mounted");
  }
  const pid = String(holder.pid);
  const inside = join("/proc", pid, "root", directory);
  const ballast = join(inside, "ballast");
  return {
    directory,
    launcher: ["nsenter", "--target", pid, "--mount"],
    fill() {
      const { bavail, bsize } = statfsSync(inside);
      try {
        writeFileSync(ballast, Buffer.alloc(bavail * bsize));
      } catch (error) {
        // somebody else took the last of it, which is as full
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      }
    },
    free: () => rmSync(ballast, { force: true }),
    close,
  };
}
