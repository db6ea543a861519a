// Backs workspaces up by the host's policy, one after the other: to files of a directory, of which the newest are kept, or to a program of the operator's.

import { spawn } from "node:child_process";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { spawned } from "../spawned.ts";
import { exportArchive, type PackReport } from "./archive/archive.ts";
import { usualMaxBytes } from "./archives.ts";
import type { WorkspaceRecord } from "./record.ts";
import type { WorkspaceRepository } from "./repository.ts";
import type { Snapshots } from "./snapshots.ts";
import type { Workspaces } from "./workspaces.ts";

export interface BackupPolicy {
  readonly everyMs: number;
  readonly timeoutMs: number;
  readonly target:
    | { readonly kind: "directory"; readonly directory: string; readonly keep: number }
    | { readonly kind: "command"; readonly command: readonly string[] };
}

export interface Backups {
  /** The newest failures that were not followed by a success, in words. */
  problems(): readonly string[];
  close(): Promise<void>;
}

export interface BackupsOptions {
  readonly policy: BackupPolicy;
  readonly repository: WorkspaceRepository;
  readonly workspaces: Pick<Workspaces, "isBusy">;
  readonly snapshots: Pick<Snapshots, "readingNow">;
  readonly onEnd: (outcome: "ok" | "failed") => void;
  readonly log: Log;
}

const ending = ".tar.zst";
/** So often in a period it is looked whose time has come, and a failed one is tried again. */
const looksPerPeriod = 10;
const mostLookMs = 60_000;
const mostSaid = 2_048;

export function createBackups(options: BackupsOptions): Backups {
  const { policy, repository, workspaces, snapshots, log } = options;
  const { everyMs, target } = policy;
  const retryMs = Math.ceil(everyMs / looksPerPeriod);
  const closing = new AbortController();
  let running: Promise<void> = Promise.resolve();
  let isLooking = false;

  const isDue = ({ backup, state, id }: WorkspaceRecord): boolean => {
    if (state !== "READY" || workspaces.isBusy(id)) return false;
    if (backup === undefined) return true;
    const passedMs = Date.now() - backup.timeMs;
    // a clock that was set back is no reason to wait for it
    return passedMs < 0 || passedMs >= (backup.error === "" ? everyMs : retryMs);
  };

  async function look(): Promise<void> {
    for (const { id } of repository.all()) {
      const record = repository.get(id);
      if (closing.signal.aborted) return;
      if (record !== undefined && isDue(record)) await backUp(record);
    }
  }

  async function backUp(record: WorkspaceRecord): Promise<void> {
    const timeMs = Date.now();
    const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(policy.timeoutMs)]);
    let bytes = 0;
    let error = "";
    try {
      bytes = await store(record, new Date(timeMs), signal);
    } catch (thrown) {
      // the next life of the daemon does it
      if (closing.signal.aborted) return;
      error = signal.aborted ? `it did not end within ${policy.timeoutMs} ms` : messageOf(thrown);
      log.warn(
        { workspace: record.id, tenant: record.tenant, err: error },
        "workspace could not be backed up",
      );
    }
    options.onEnd(error === "" ? "ok" : "failed");
    repository.edit(record, (now) => ({ ...now, backup: { timeMs, bytes, error } }));
  }

  /** Resolves to the length of the archive. */
  async function store({ id, tenant }: WorkspaceRecord, time: Date, signal: AbortSignal): Promise<number> {
    const onReport = ({ unreadable }: PackReport) => {
      if (unreadable === 0) return;
      log.info(
        { workspace: id, tenant, count: unreadable },
        "files that their owner may not read were left out",
      );
    };
    const archive = snapshots.readingNow(id, (directory, { uid, limits }) =>
      exportArchive({ directory, uid, maxBytes: usualMaxBytes(limits), signal, onReport }),
    );
    const name = time.toISOString().replaceAll(":", "-");
    if (target.kind === "directory") {
      const folder = join(target.directory, tenant, id);
      return toFile(folder, name, archive).finally(() => prune(folder, target.keep));
    }
    const told = { BACKUP_TENANT: tenant, BACKUP_WORKSPACE: id, BACKUP_TIME: time.toISOString() };
    return toCommand(target.command, told, archive, signal);
  }

  const timer = setInterval(
    () => {
      if (isLooking) return;
      isLooking = true;
      running = look()
        .catch((error: unknown) => log.warn({ err: messageOf(error) }, "backups did not go on"))
        .finally(() => {
          isLooking = false;
        });
    },
    Math.min(mostLookMs, retryMs),
  );

  return {
    problems: () =>
      repository
        .all()
        .flatMap(({ id, backup }) =>
          backup === undefined || backup.error === "" ? [] : [`${id}: ${backup.error}`],
        ),
    async close() {
      clearInterval(timer);
      closing.abort();
      await running;
    },
  };
}

/** One that is not whole never has an archive's name. */
async function toFile(folder: string, name: string, archive: AsyncIterable<Uint8Array>): Promise<number> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const partial = join(folder, `${name}.partial`);
  const handle = await open(partial, "w", 0o600);
  try {
    let bytes = 0;
    for await (const piece of archive) {
      await handle.writeFile(piece);
      bytes += piece.length;
    }
    await handle.sync();
    await rename(partial, join(folder, `${name}${ending}`));
    return bytes;
  } finally {
    await handle.close();
  }
}

/** Keeps the newest archives, by their names, and nothing that was begun and not completed. */
async function prune(folder: string, keep: number): Promise<void> {
  const names = await readdir(folder);
  const archives = names.filter((name) => name.endsWith(ending)).sort();
  const old = archives.slice(0, Math.max(0, archives.length - keep));
  const partial = names.filter((name) => name.endsWith(".partial"));
  for (const name of [...old, ...partial]) await rm(join(folder, name), { force: true });
}

/** Rejects unless the program took all of it and exits with 0. */
async function toCommand(
  [program = "", ...args]: readonly string[],
  told: Readonly<Record<string, string>>,
  archive: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  const child = await spawned(
    spawn(program, args, {
      stdio: ["pipe", "ignore", "pipe"],
      env: { PATH: process.env["PATH"], LC_ALL: "C", ...told },
      signal,
      killSignal: "SIGKILL",
    }),
  );
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (said.length < mostSaid) said += text;
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, killed) => {
      const why = said.trim().slice(0, mostSaid).replaceAll(/\s+/g, " ");
      if (code === 0) resolve();
      else reject(new Error(`${program} ended with ${code ?? killed}${why === "" ? "" : `: ${why}`}`));
    });
  });
  let bytes = 0;
  let archiveFailure: unknown;
  const counted = async function* () {
    try {
      for await (const piece of archive) {
        bytes += piece.length;
        yield piece;
      }
    } catch (error) {
      // before its input ends: it would take what it has for a whole archive
      archiveFailure = error;
      child.kill("SIGKILL");
      throw error;
    }
  };
  // how the program ended tells more than that it took no more
  const sent = pipeline(Readable.from(counted()), child.stdin).then(
    () => undefined,
    (error: unknown) => error,
  );
  const end = await ended.then(
    () => undefined,
    (error: unknown) => error,
  );
  const failure = archiveFailure ?? end ?? (await sent);
  if (failure !== undefined) throw failure;
  return bytes;
}
