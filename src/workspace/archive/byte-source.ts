// Reads a stream of chunks by the number of bytes wanted, and holds no more of it than one chunk.

/** To be read by one reader, one call after the other. */
export interface ByteSource {
  /** Bytes handed out so far. */
  readonly position: number;
  /** Exactly so many bytes, or fewer at the end of the stream. The whole is held: for small counts. */
  read(count: number): Promise<Buffer>;
  /** Up to so many bytes, at least one; none at the end of the stream. */
  readSome(most: number): Promise<Buffer>;
}

const nothing = Buffer.alloc(0);

/** `onBytes` is told how many were handed out in all, before they are, and may throw. */
export function createByteSource(
  chunks: AsyncIterable<Uint8Array>,
  onBytes: (position: number) => void = () => {},
): ByteSource {
  const iterator = chunks[Symbol.asyncIterator]();
  let chunk: Buffer = nothing;
  let isOver = false;
  let position = 0;

  async function readSome(most: number): Promise<Buffer> {
    while (chunk.length === 0 && !isOver) {
      const { value, done } = await iterator.next();
      if (done === true) isOver = true;
      else chunk = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    }
    const piece = chunk.subarray(0, most);
    chunk = chunk.subarray(piece.length);
    position += piece.length;
    onBytes(position);
    return piece;
  }

  return {
    get position() {
      return position;
    },
    readSome,
    async read(count) {
      const first = await readSome(count);
      if (first.length === count || first.length === 0) return first;
      const pieces = [first];
      for (let missing = count - first.length; missing > 0; ) {
        const piece = await readSome(missing);
        if (piece.length === 0) break;
        pieces.push(piece);
        missing -= piece.length;
      }
      return Buffer.concat(pieces);
    },
  };
}
