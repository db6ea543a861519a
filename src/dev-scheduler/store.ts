// What a scheduler must not forget: per host and epoch, the newest event that it has stored.

import {
  closeSync,
  fdatasyncSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
  writeSync,
} from "node:fs";

export interface AckStore {
  /** The newest sequence number kept for a host and epoch; 0 if none. */
  acknowledged(hostId: string, epoch: string): number;
  /** Keeps a number; durable when it returns. Numbers that do not rise are ignored. */
  keep(hostId: string, epoch: string, sequence: number): void;
  close(): void;
}

export function createMemoryStore(): AckStore {
  const kept = new Map<string, number>();
  return {
    acknowledged: (hostId, epoch) => kept.get(keyOf(hostId, epoch)) ?? 0,
    keep(hostId, epoch, sequence) {
      const key = keyOf(hostId, epoch);
      kept.set(key, Math.max(kept.get(key) ?? 0, sequence));
    },
    close: () => undefined,
  };
}

/** Keeps one JSON object a line; the file is made when absent and shortened when opened. Throws what the file system throws. */
export function openFileStore(path: string): AckStore {
  const memory = createMemoryStore();
  const newest = new Map<string, string>();
  for (const { hostId, epoch, sequence } of readLines(path)) {
    memory.keep(hostId, epoch, sequence);
    const known = { hostId, epoch, sequence: memory.acknowledged(hostId, epoch) };
    newest.set(keyOf(hostId, epoch), `${JSON.stringify(known)}\n`);
  }
  writeFileSync(`${path}.new`, [...newest.values()].join(""), { flush: true });
  renameSync(`${path}.new`, path);
  const file = openSync(path, "a");
  return {
    acknowledged: memory.acknowledged,
    keep(hostId, epoch, sequence) {
      if (sequence <= memory.acknowledged(hostId, epoch)) return;
      writeSync(file, `${JSON.stringify({ hostId, epoch, sequence })}\n`);
      fdatasyncSync(file);
      memory.keep(hostId, epoch, sequence);
    },
    close: () => closeSync(file),
  };
}

interface Line {
  readonly hostId: string;
  readonly epoch: string;
  readonly sequence: number;
}

function readLines(path: string): readonly Line[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  // what follows the last newline was torn by a crash and never acknowledged
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}

function keyOf(hostId: string, epoch: string): string {
  return JSON.stringify([hostId, epoch]);
}
