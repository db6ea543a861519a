// The real toolbox on this machine, as an unprivileged user, and the domain over it.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { onTestFinished } from "vitest";
import { createFiles, type Files } from "../../../src/files/files.ts";
import { type Connection, connectionOver, type Link } from "../../../src/toolbox/connection.ts";
import { ensureToolbox } from "../../../tools/lib/toolbox.mjs";

export const uid = 23_457;
export const id = "box";

const program = await ensureToolbox({ log: () => undefined });

export interface Inside {
  readonly files: Files;
  readonly link: Link;
  /** The user's, and empty. */
  readonly home: string;
  readonly server: ChildProcess;
  /** Workers that run now. */
  workers(): number;
}

export async function inside(): Promise<Inside> {
  const around = mkdtempSync(join(tmpdir(), "sandboxd-files-"));
  onTestFinished(() => {
    execFileSync("rm", ["-rf", around]);
  });
  chmodSync(around, 0o755);
  const [home, run] = [join(around, "home"), join(around, "run")];
  for (const directory of [home, run]) {
    mkdirSync(directory, 0o755);
    chownSync(directory, uid, uid);
  }
  copyFileSync(program, join(around, "toolbox"));
  chmodSync(join(around, "toolbox"), 0o755);
  const socket = join(run, "toolbox.sock");
  const server = spawn(join(around, "toolbox"), ["serve", socket], {
    uid,
    gid: uid,
    stdio: "ignore",
    cwd: "/",
  });
  onTestFinished(async () => {
    // also one that a test has stopped
    for (const worker of childrenOf(server)) killed(worker);
    const ended = once(server, "exit");
    server.kill("SIGKILL");
    await ended;
    rmSync(socket, { force: true });
  });
  const link: Link = {
    async open(): Promise<Connection> {
      const opened = connect(socket);
      await once(opened, "connect");
      return connectionOver(opened);
    },
    openProcess: () => Promise.resolve(undefined),
  };
  await listening(link);
  const workers = () => childrenOf(server).length;
  return { files: createFiles({ link }), link, home, server, workers };
}

function childrenOf({ pid }: ChildProcess): readonly number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  return children.split(" ").filter(Boolean).map(Number);
}

/** One that has ended by then is what was wanted. */
function killed(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

async function listening(link: Link): Promise<void> {
  for (;;) {
    try {
      (await link.open(id)).close();
      return;
    } catch {
      await sleep(5);
    }
  }
}

/** A file system of its own below the home directory, for as long as the test. */
export function mounted(directory: string, options: string): void {
  mkdirSync(directory);
  execFileSync("mount", ["-t", "tmpfs", "-o", options, "none", directory]);
  onTestFinished(() => void execFileSync("umount", ["-l", directory]));
}

/** Bytes are copied: a piece is good until the next is asked for. */
export async function all<T>(items: AsyncIterable<T>): Promise<readonly T[]> {
  const found: T[] = [];
  for await (const item of items)
    found.push(Buffer.isBuffer(item) ? (Buffer.from(item) as T & Buffer) : item);
  return found;
}

export async function* pieces(bytes: Uint8Array, size = 100_000): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}
