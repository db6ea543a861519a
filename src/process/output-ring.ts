// The newest output of one process, for those who connect later and for slow readers: bytes in blocks, with where each event
// ends. Its memory is that of what it holds.

export type OutputStream = "stdout" | "stderr" | "terminal";

/** Events in a row of one stream, as one piece. */
export interface OutputPiece {
  readonly firstSequence: number;
  /** Of the last event in it. */
  readonly sequence: number;
  /** Bytes of output before it, of all streams together. */
  readonly offset: number;
  readonly stream: OutputStream;
  /** A view: it stays as it is. */
  readonly data: Uint8Array;
}

export interface OutputEvent {
  readonly sequence: number;
  readonly offset: number;
  readonly stream: OutputStream;
  readonly data: Uint8Array;
}

export interface OutputRing {
  /** Sequence and offset only rise; where they jump, output is missing. The newest event is kept whatever its size. */
  append(event: OutputEvent): void;
  /** The oldest that is retained after this event, up to so many bytes in one piece; undefined if there is none. */
  read(afterSequence: number, mostBytes: number): OutputPiece | undefined;
  /**
   * Bytes of output up to the end of an event. Exact for what is retained and for the last that was dropped; of what was dropped
   * longer ago at most `blockBytes` too few.
   */
  offsetAfter(sequence: number): number;
  /** Takes up where a ring that is lost had come to. */
  restore(lastSequence: number, outputBytes: number): void;
  /** Drops everything. */
  clear(): void;
  /** Of the oldest event that is retained; the next one to come if there is none. */
  readonly firstSequence: number;
  /** Of the newest event, retained or not. */
  readonly lastSequence: number;
  /** Bytes of output so far, retained or not. */
  readonly outputBytes: number;
  readonly heldBytes: number;
}

/** What all rings together may hold. */
export interface OutputBudget {
  /** A ring holds so much more, or less. Whether all of them are within the bound. */
  holds(changeBytes: number): boolean;
  /** What is held for a process that has ended goes first, in the order in which they ended. */
  retire(ring: OutputRing): void;
  readonly heldBytes: number;
}

/** Events are kept together in blocks of this size. */
export const blockBytes = 65_536;
/** Larger events are kept as they came. */
const looseBytes = 16_384;
const mostEvents = 8_192;
/** What an event costs at the least: where it ends, its stream, and its share of a block. */
const leastEventBytes = 8;
/** What a block costs that began because output was missing before it. */
const holeBytes = 512;
/** Kept in any case, however little there is for all. */
const floorBytes = 65_536;
/** Ends of blocks that were dropped: where they lay is remembered for so many. */
const mostMarks = 512;

const streams = ["stdout", "stderr", "terminal"] as const satisfies readonly OutputStream[];

interface Block {
  readonly first: number;
  readonly offset: number;
  readonly overheadBytes: number;
  bytes: Buffer;
  length: number;
  /** Events in it, of which the first `dropped` do not count any more. */
  count: number;
  dropped: number;
  /** Where each event ends. */
  ends: Uint32Array;
  kinds: Uint8Array;
}

/** `told` hears what is held, whenever that changes. */
export function createOutputBudget(
  mostBytes: number,
  told: (heldBytes: number) => void = () => {},
): OutputBudget {
  const ended = new Set<OutputRing>();
  let heldBytes = 0;
  return {
    holds(changeBytes) {
      heldBytes += changeBytes;
      for (const ring of ended) {
        if (heldBytes <= mostBytes) break;
        ended.delete(ring);
        ring.clear();
      }
      if (changeBytes !== 0) told(heldBytes);
      return heldBytes <= mostBytes;
    },
    retire(ring) {
      if (ring.heldBytes > 0) ended.add(ring);
    },
    get heldBytes() {
      return heldBytes;
    },
  };
}

export function createOutputRing(limitBytes: number, budget: OutputBudget): OutputRing {
  let blocks: Block[] = [];
  let marks: { readonly sequence: number; readonly offset: number }[] = [];
  let last = { sequence: 1, offset: 0 };
  let lastDropped = last;
  let costBytes = 0;

  function charge(bytes: number): boolean {
    costBytes += bytes;
    return budget.holds(bytes);
  }

  /** Drops the oldest event of those that are kept. */
  function dropOldest(): void {
    const [block] = blocks;
    if (block === undefined) return;
    const index = block.dropped++;
    lastDropped = { sequence: block.first + index, offset: block.offset + endOf(block, index) };
    let freed = costOf(endOf(block, index) - endOf(block, index - 1));
    if (block.dropped === block.count) {
      freed += block.overheadBytes;
      blocks.shift();
      marks.push({ sequence: block.first - 1, offset: block.offset });
      // thinned out, so that old ones stay known roughly
      if (marks.length > mostMarks) marks = marks.filter((_, at) => at % 2 === 1);
    }
    charge(-freed);
  }

  function isAlone(): boolean {
    const [block] = blocks;
    return blocks.length === 1 && block !== undefined && block.count - block.dropped === 1;
  }

  const ring: OutputRing = {
    append(event) {
      const { sequence, offset, data } = event;
      const newest = blocks.at(-1);
      const follows = sequence === last.sequence + 1 && offset === last.offset;
      const fits =
        follows &&
        newest !== undefined &&
        data.length < looseBytes &&
        newest.length + data.length <= blockBytes &&
        newest.count < mostEvents;
      const overheadBytes = follows ? 0 : holeBytes;
      if (fits) add(newest, event);
      else blocks.push(blockOf(event, overheadBytes));
      last = { sequence, offset: offset + data.length };
      let isWithin = charge(costOf(data.length) + (fits ? 0 : overheadBytes));
      while (costBytes > limitBytes && !isAlone()) dropOldest();
      while (!isWithin && costBytes > floorBytes && !isAlone()) {
        dropOldest();
        isWithin = budget.holds(0);
      }
    },
    read(afterSequence, mostBytes) {
      const block = blocks[firstAfter(blocks, afterSequence)];
      if (block === undefined) return undefined;
      const from = Math.max(afterSequence + 1 - block.first, block.dropped);
      const begin = endOf(block, from - 1);
      let to = from;
      while (
        to + 1 < block.count &&
        block.kinds[to + 1] === block.kinds[from] &&
        endOf(block, to + 1) - begin <= mostBytes
      )
        to++;
      return {
        firstSequence: block.first + from,
        sequence: block.first + to,
        offset: block.offset + begin,
        stream: streams[block.kinds[from] ?? 0] ?? "stdout",
        data: block.bytes.subarray(begin, endOf(block, to)),
      };
    },
    offsetAfter(sequence) {
      if (sequence >= last.sequence) return last.offset;
      const next = blocks[firstAfter(blocks, sequence)];
      // who has seen the event before a block has missed nothing, whatever is known of what came before
      if (next?.first === sequence + 1) return next.offset;
      if (next !== undefined && sequence >= next.first)
        return next.offset + endOf(next, sequence - next.first);
      const before = blocks[firstAfter(blocks, sequence) - 1];
      // between two blocks with a hole between them
      if (before !== undefined) return before.offset + before.length;
      if (sequence >= lastDropped.sequence) return lastDropped.offset;
      return marks.findLast((mark) => mark.sequence <= sequence)?.offset ?? 0;
    },
    restore(lastSequence, outputBytes) {
      last = { sequence: lastSequence, offset: outputBytes };
      lastDropped = last;
    },
    clear() {
      if (blocks.length > 0) lastDropped = last;
      blocks = [];
      marks = [];
      charge(-costBytes);
    },
    get firstSequence() {
      const [block] = blocks;
      return block === undefined ? last.sequence + 1 : block.first + block.dropped;
    },
    get lastSequence() {
      return last.sequence;
    },
    get outputBytes() {
      return last.offset;
    },
    get heldBytes() {
      return blocks.reduce((sum, block) => sum + block.length - endOf(block, block.dropped - 1), 0);
    },
  };
  return ring;
}

const costOf = (bytes: number) => Math.max(leastEventBytes, bytes);

const endOf = (block: Block, index: number): number => (index < 0 ? 0 : (block.ends[index] ?? 0));

function blockOf(event: OutputEvent, overheadBytes: number): Block {
  const { sequence, offset, data } = event;
  const isLoose = data.length >= looseBytes;
  const block: Block = {
    first: sequence,
    offset,
    overheadBytes,
    bytes: isLoose ? ownBytes(data) : Buffer.allocUnsafeSlow(Math.max(256, data.length)),
    length: 0,
    count: 0,
    dropped: 0,
    ends: new Uint32Array(isLoose ? 1 : 8),
    kinds: new Uint8Array(isLoose ? 1 : 8),
  };
  add(block, event);
  return block;
}

/** The memory of the bytes themselves, or some of the same size where theirs is much larger, and would be kept with them. */
function ownBytes(data: Uint8Array): Buffer {
  if (data.buffer.byteLength > data.length * 1.25) return Buffer.allocUnsafeSlow(data.length);
  return Buffer.from(data.buffer, data.byteOffset, data.length);
}

function add(block: Block, { data, stream }: OutputEvent): void {
  const length = block.length + data.length;
  if (length > block.bytes.length) {
    const grown = Buffer.allocUnsafeSlow(Math.max(length, Math.min(blockBytes, 2 * block.bytes.length)));
    // readers may still have views of the old one
    block.bytes.copy(grown, 0, 0, block.length);
    block.bytes = grown;
  }
  if (block.count === block.ends.length) {
    const ends = new Uint32Array(2 * block.count);
    const kinds = new Uint8Array(2 * block.count);
    ends.set(block.ends);
    kinds.set(block.kinds);
    block.ends = ends;
    block.kinds = kinds;
  }
  // one that came alone may be kept where it is
  if (block.bytes.buffer !== data.buffer) block.bytes.set(data, block.length);
  block.ends[block.count] = length;
  block.kinds[block.count] = streams.indexOf(stream);
  block.count++;
  block.length = length;
}

/** The index of the first block that has an event after this one. */
function firstAfter(blocks: readonly Block[], sequence: number): number {
  let low = 0;
  let high = blocks.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const block = blocks[middle];
    if (block !== undefined && block.first + block.count - 1 > sequence) high = middle;
    else low = middle + 1;
  }
  return low;
}
