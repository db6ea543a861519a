// An answer of HTTP/1.1 as it comes, without a library.

/** Told of each piece of an answer, until it ends. */
export type Reading = (onPiece: (bytes: Uint8Array) => void) => Promise<void>;

/** How many bytes come behind the headers. */
export async function bodyBytes(read: Reading): Promise<number> {
  let [count, head] = [0, ""];
  await read((bytes) => {
    if (head.includes("\r\n\r\n")) {
      count += bytes.length;
      return;
    }
    head += Buffer.from(bytes).toString("latin1");
    const at = head.indexOf("\r\n\r\n");
    if (at !== -1) count = head.length - at - 4;
  });
  return count;
}
