// Holds what is to be sent, within a bound. Records of one tag are gathered to chunks; when all of them together are too many
// bytes, the oldest chunk that is not being sent is dropped: what a sandbox wrote last says more than what it wrote first.

/** A line's place, to go on from in another life of the daemon. */
export interface Place {
  readonly sandboxId: string;
  readonly instance: string;
  readonly containerId: string;
  readonly sequence: bigint;
}

/** Entries of one tag, one after the other. */
export interface Chunk {
  readonly tag: string;
  readonly records: number;
  /** Only the first `bytes` of it. */
  readonly data: Buffer;
  readonly bytes: number;
}

export interface ForwardBuffer {
  /** Copies an entry; others may be dropped for it, or itself where it alone is too large. */
  push(tag: string, entry: Uint8Array, place: Place): void;
  /**
   * The oldest chunk that is full, or has waited long enough; after that the same one again, until it is `done`. It is not
   * dropped.
   */
  take(): Chunk | undefined;
  /** How long until there is something to take; undefined while there is nothing at all. Unit: milliseconds. */
  dueInMs(): number | undefined;
  /** What was taken has arrived. */
  done(): void;
  bytes(): number;
}

export interface ForwardBufferOptions {
  readonly mostBytes: number;
  /** The longest that an entry waits for others. */
  readonly gatherMs: number;
  readonly nowMs: () => number;
  /** Told of each chunk that is dropped. */
  readonly dropped: (records: number, bytes: number) => void;
  /** Everything up to here has arrived, or was dropped. */
  readonly settled: (place: Place) => void;
}

/** What is sent at once: as large as fluentd's own clients send, and small against any bound of the whole. */
const chunkBytes = 256 * 1024;

/** The room of a new chunk; most tags are seldom written to. */
const firstBytes = 4 * 1024;

interface Gathered {
  readonly tag: string;
  readonly beganMs: number;
  /** The last place of each sandbox in it. */
  readonly places: Map<string, Place>;
  data: Buffer;
  bytes: number;
  records: number;
  /** Whether it takes no more. */
  isFull: boolean;
}

export function createForwardBuffer(options: ForwardBufferOptions): ForwardBuffer {
  const { mostBytes, gatherMs, nowMs } = options;
  const fullBytes = Math.min(chunkBytes, Math.floor(mostBytes / 4));
  /** In the order in which they were begun; of each tag, all but the last are full. */
  const chunks = new Set<Gathered>();
  const newest = new Map<string, Gathered>();
  let taken: Gathered | undefined;
  let total = 0;

  function gather(tag: string): Gathered {
    const known = newest.get(tag);
    if (known !== undefined && !known.isFull) return known;
    const chunk: Gathered = {
      ...{ tag, beganMs: nowMs(), places: new Map(), data: Buffer.allocUnsafe(firstBytes) },
      ...{ bytes: 0, records: 0, isFull: false },
    };
    newest.set(tag, chunk);
    chunks.add(chunk);
    return chunk;
  }

  function forget(chunk: Gathered): void {
    chunks.delete(chunk);
    if (newest.get(chunk.tag) === chunk) newest.delete(chunk.tag);
    total -= chunk.bytes;
  }

  function drop(chunk: Gathered): void {
    forget(chunk);
    options.dropped(chunk.records, chunk.bytes);
    for (const place of chunk.places.values()) {
      // what the sandbox wrote before may still be on its way; this is settled with it
      if (taken?.places.has(place.sandboxId)) taken.places.set(place.sandboxId, place);
      else options.settled(place);
    }
  }

  const dueInMsOf = ({ isFull, beganMs }: Gathered) =>
    isFull ? 0 : Math.max(0, beganMs + gatherMs - nowMs());

  const next = (): Gathered | undefined => {
    let found: Gathered | undefined;
    for (const chunk of chunks) {
      if (dueInMsOf(chunk) === 0) return chunk;
      found ??= chunk;
    }
    return found;
  };

  return {
    push(tag, entry, place) {
      const chunk = gather(tag);
      const bytes = chunk.bytes + entry.length;
      if (bytes > chunk.data.length) {
        const data = Buffer.allocUnsafe(Math.max(bytes, chunk.data.length * 2));
        chunk.data.copy(data, 0, 0, chunk.bytes);
        chunk.data = data;
      }
      chunk.data.set(entry, chunk.bytes);
      chunk.bytes = bytes;
      chunk.records += 1;
      chunk.isFull = bytes >= fullBytes;
      total += entry.length;
      chunk.places.set(place.sandboxId, place);
      while (total > mostBytes) {
        const oldest = [...chunks].find((one) => one !== taken);
        if (oldest === undefined) break;
        drop(oldest);
      }
    },
    take() {
      if (taken !== undefined) return taken;
      const found = next();
      if (found === undefined || dueInMsOf(found) > 0) return undefined;
      found.isFull = true;
      taken = found;
      return taken;
    },
    dueInMs() {
      const found = taken ?? next();
      return found === undefined ? undefined : dueInMsOf(found);
    },
    done() {
      if (taken === undefined) return;
      const { places } = taken;
      forget(taken);
      taken = undefined;
      for (const place of places.values()) options.settled(place);
    },
    bytes: () => total,
  };
}
