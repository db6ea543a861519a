// Answers that still hold, and questions that are being asked: each once, however many wait. Every tenant has its own, so that nobody
// learns from how fast an answer comes what others asked; and who fills the room loses the oldest of its own first.

import type { Answer } from "./answer.ts";
import { type Question, sizeOf } from "./message.ts";

export interface Held extends Answer {
  /** By the same clock as `nowMs`. */
  readonly untilMs: number;
}

export interface KnownAnswersOptions {
  readonly ask: (question: Question) => Promise<Answer>;
  readonly nowMs: () => number;
  /** About what all of it takes of memory. Default: 16 MiB. */
  readonly maxBytes?: number;
}

export interface KnownAnswers {
  /** What still holds. `shelf`: whose; a tenant's gateway. */
  held(shelf: string, question: Question): Held | undefined;
  /** Asks, or waits for the one who does. Rejects only as `ask` does. */
  ask(shelf: string, question: Question): Promise<Held>;
  /** Drops a shelf with all that is on it. */
  drop(shelf: string): void;
  /** About what is held. Unit: bytes. */
  bytes(): number;
}

interface Kept {
  readonly held: Held;
  readonly bytes: number;
}

interface Shelf {
  /** In the order of their coming. */
  readonly kept: Map<string, Kept>;
  readonly asked: Map<string, Promise<Held>>;
  bytes: number;
}

/** What an entry takes beside its records, and each byte of these as values. Measured. */
const entryBytes = 512;
const bytesPerByte = 5;

export function createKnownAnswers({
  ask,
  nowMs,
  maxBytes = 16 * 1_024 ** 2,
}: KnownAnswersOptions): KnownAnswers {
  const shelves = new Map<string, Shelf>();
  let bytes = 0;

  function shelfOf(name: string): Shelf {
    const known = shelves.get(name);
    if (known !== undefined) return known;
    const shelf: Shelf = { kept: new Map(), asked: new Map(), bytes: 0 };
    shelves.set(name, shelf);
    return shelf;
  }

  function remove(shelf: Shelf, key: string): void {
    const kept = shelf.kept.get(key);
    if (kept === undefined) return;
    shelf.kept.delete(key);
    shelf.bytes -= kept.bytes;
    bytes -= kept.bytes;
  }

  function keep(shelf: Shelf, key: string, held: Held): void {
    remove(shelf, key);
    const kept = { held, bytes: entryBytes + key.length + bytesPerByte * sizeOf(held.records) };
    shelf.kept.set(key, kept);
    shelf.bytes += kept.bytes;
    bytes += kept.bytes;
    while (bytes > maxBytes) {
      const fullest = [...shelves.values()].reduce(
        (most, one) => (one.bytes > most.bytes ? one : most),
        shelf,
      );
      const [oldest] = fullest.kept.keys();
      if (oldest === undefined) return;
      remove(fullest, oldest);
    }
  }

  function askOnce(name: string, key: string, question: Question): Promise<Held> {
    const shelf = shelfOf(name);
    const asked = askNow(name, key, question).finally(() => shelf.asked.delete(key));
    shelf.asked.set(key, asked);
    return asked;
  }

  async function askNow(name: string, key: string, question: Question): Promise<Held> {
    const shelf = shelfOf(name);
    const answer = await ask(question);
    const held = { ...answer, untilMs: nowMs() + answer.ttlMs };
    // one that was dropped meanwhile is nobody's
    if (answer.ttlMs > 0 && shelves.get(name) === shelf) keep(shelf, key, held);
    return held;
  }

  return {
    held(name, question) {
      const shelf = shelves.get(name);
      const key = keyOf(question);
      const held = shelf?.kept.get(key)?.held;
      if (shelf === undefined || held === undefined || nowMs() < held.untilMs) return held;
      remove(shelf, key);
      return undefined;
    },
    ask(name, question) {
      const key = keyOf(question);
      return shelfOf(name).asked.get(key) ?? askOnce(name, key, question);
    },
    drop(name) {
      bytes -= shelves.get(name)?.bytes ?? 0;
      shelves.delete(name);
    },
    bytes: () => bytes,
  };
}

function keyOf({ name, type }: Question): string {
  return `${type} ${name}`;
}
