// Makes commits last: one write to disk for all that were committed until then, while the event loop goes on. SQLite's own
// way (synchronous=FULL) is the same write after each commit, with everybody waiting for it.

import { closeSync, fdatasync, fdatasyncSync, openSync } from "node:fs";
import { promisify } from "node:util";

export interface Durability {
  /** Something was committed; it is written to disk soon. */
  committed(): void;
  /** Resolves once everything committed so far survives a loss of power. */
  durable(): Promise<void>;
  /** Writes what is left. */
  close(): void;
}

/** Where commits go. */
export interface Disk {
  /** Resolves once everything written so far survives a loss of power. */
  sync(): Promise<void>;
  /** As sync(), with everybody waiting. */
  syncNow(): void;
  close(): void;
}

interface DurabilityOptions<Mark> {
  readonly disk: Disk;
  /** What has been committed at this moment. */
  readonly mark: () => Mark;
  /** Everything up to the mark is on disk; `seconds` is how long the disk took. */
  readonly onDurable: (mark: Mark, seconds: number) => void;
}

const syncFile = promisify(fdatasync);

/** The disk below SQLite's write-ahead log, which every commit has been appended to. */
export function openDisk(logFile: string): Disk {
  const descriptor = openSync(logFile, "r");
  return {
    sync: () => syncFile(descriptor),
    syncNow: () => fdatasyncSync(descriptor),
    close: () => closeSync(descriptor),
  };
}

/**
 * With synchronous=NORMAL a commit is appended to the log, in order and with a checksum over all before it, and may be lost
 * with the power until the log is synced (https://sqlite.org/pragma.html#pragma_synchronous). So what lasts is always
 * a beginning of what was committed.
 */
export function createDurability<Mark>({ disk, mark, onDurable }: DurabilityOptions<Mark>): Durability {
  // what a process that was killed has left unsynced is already there to be read
  disk.syncNow();
  let committed = 0;
  let written = 0;
  let waiting: { readonly position: number; readonly resolve: () => void }[] = [];
  let isWriting = false;
  let closing = false;

  /**
   * Nobody handles its failure, so that the process ends: after a failed sync the kernel may have dropped what it could not
   * write, and another sync would say that all is well (https://lwn.net/Articles/752063/).
   */
  async function write(): Promise<void> {
    isWriting = true;
    while (written < committed && !closing) {
      const position = committed;
      const marked = mark();
      const began = performance.now();
      await disk.sync();
      written = position;
      const done = waiting.filter((one) => one.position <= position);
      waiting = waiting.filter((one) => one.position > position);
      if (!closing) onDurable(marked, (performance.now() - began) / 1_000);
      for (const { resolve } of done) resolve();
    }
    isWriting = false;
    if (closing) end();
  }

  function end(): void {
    disk.syncNow();
    disk.close();
    for (const { resolve } of waiting.splice(0)) resolve();
  }

  return {
    committed() {
      committed++;
      if (!isWriting) void write();
    },
    durable() {
      if (written === committed) return Promise.resolve();
      return new Promise((resolve) => waiting.push({ position: committed, resolve }));
    },
    close() {
      if (closing) return;
      closing = true;
      // one that is under way uses the disk
      if (!isWriting) end();
    },
  };
}
