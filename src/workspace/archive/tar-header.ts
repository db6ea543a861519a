// One block of a tar archive: the header before each entry, as POSIX.1-2024 (pax, "ustar Interchange Format") and GNU tar have it.
//
// Why this is not a library's: tar-stream 3.2 and tar 7.5 take names for UTF-8, so that others come back changed, and two of
// them as one; both take an archive that was cut between two entries for whole. A backup and its restore can afford neither.

export const blockBytes = 512;

/** The fields that count here. Names are bytes, as in names.ts. */
export interface Header {
  /** One character; "0" for the oldest kind, which has none. */
  readonly type: string;
  readonly path: string;
  readonly linkPath: string;
  readonly mode: number;
  /** Bytes after the header; negative if the archive says so. */
  readonly size: number;
  /** Since 1970. Unit: seconds. */
  readonly mtime: number;
}

/** From `start` up to `end`, which is the next field's start. */
const fields = {
  name: [0, 100],
  mode: [100, 108],
  uid: [108, 116],
  gid: [116, 124],
  size: [124, 136],
  mtime: [136, 148],
  checksum: [148, 156],
  type: [156, 157],
  linkName: [157, 257],
  magic: [257, 263],
  version: [263, 265],
  prefix: [345, 500],
} as const;

type Field = (typeof fields)[keyof typeof fields];

/** What is no header, with the reason. */
export type Decoded = { readonly header: Header } | { readonly problem: string };

/** Reads a block that is not all zeros. */
export function decodeHeader(block: Buffer): Decoded {
  if (numberIn(block, fields.checksum) !== checksumOf(block)) return { problem: "its checksum is wrong" };
  const [mode, size, mtime] = [fields.mode, fields.size, fields.mtime].map((field) => numberIn(block, field));
  if (mode === undefined || size === undefined || mtime === undefined)
    return { problem: "a number in it is malformed" };
  const name = textIn(block, fields.name);
  // GNU tar has other things at this place
  const prefix = bytesIn(block, fields.magic) === "ustar\0" ? textIn(block, fields.prefix) : "";
  const type = bytesIn(block, fields.type);
  const header = {
    type: type === "\0" ? "0" : type,
    path: prefix === "" ? name : `${prefix}/${name}`,
    linkPath: textIn(block, fields.linkName),
    mode,
    size,
    mtime,
  };
  return { header };
}

/**
 * A block for it. What does not fit is cut: then a pax header in front of it must tell the whole. Owner and group are 0: who
 * unpacks it will own it, and the same tree gives the same bytes for whoever owned it.
 */
export function encodeHeader(header: Header): Buffer {
  const block = Buffer.alloc(blockBytes);
  const put = ([start, end]: Field, text: string) => block.write(text.slice(0, end - start), start, "latin1");
  const putNumber = (field: Field, value: number) => put(field, octal(value, field[1] - field[0] - 1));
  put(fields.name, header.path);
  putNumber(fields.mode, header.mode);
  putNumber(fields.uid, 0);
  putNumber(fields.gid, 0);
  putNumber(fields.size, header.size);
  putNumber(fields.mtime, Math.floor(header.mtime));
  put(fields.type, header.type);
  put(fields.linkName, header.linkPath);
  put(fields.magic, "ustar\0");
  put(fields.version, "00");
  put(fields.checksum, `${octal(checksumOf(block), 6)}\0 `);
  return block;
}

/** Whether a header can tell all of it by itself. */
export function fits({ path, linkPath, size, mtime }: Header): boolean {
  return (
    path.length <= 100 &&
    linkPath.length <= 100 &&
    // names in a header have no encoding; those of a pax header are UTF-8
    isAscii(path) &&
    isAscii(linkPath) &&
    size < 8 ** 11 &&
    Number.isInteger(mtime) &&
    mtime >= 0 &&
    mtime < 8 ** 11
  );
}

function isAscii(name: string): boolean {
  return /^[\x20-\x7e]*$/.test(name);
}

/** The nearest that so many digits can say. */
function octal(value: number, digits: number): string {
  return Math.min(Math.max(value, 0), 8 ** digits - 1)
    .toString(8)
    .padStart(digits, "0");
}

/** Of all its bytes, those of the checksum itself taken for spaces. */
function checksumOf(block: Buffer): number {
  const [start, end] = fields.checksum;
  let sum = (end - start) * 32;
  for (let index = 0; index < blockBytes; index += 1)
    if (index < start || index >= end) sum += block[index] ?? 0;
  return sum;
}

function bytesIn(block: Buffer, [start, end]: Field): string {
  return block.toString("latin1", start, end);
}

function textIn(block: Buffer, field: Field): string {
  const text = bytesIn(block, field);
  const end = text.indexOf("\0");
  return end === -1 ? text : text.slice(0, end);
}

/** Octal digits, or GNU's two's complement in base 256. Undefined if it is neither, or beyond what a number holds exactly. */
function numberIn(block: Buffer, field: Field): number | undefined {
  const [start, end] = field;
  const first = block[start] ?? 0;
  if (first >= 0x80) {
    const bits = 8 * (end - start) - 1;
    const whole = BigInt(`0x${block.toString("hex", start, end)}`);
    const value = Number(BigInt.asIntN(bits, whole));
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const digits = bytesIn(block, field).replace(/^[ \0]+|[ \0].*$/gs, "");
  return /^[0-7]*$/.test(digits) ? Number.parseInt(`0${digits}`, 8) : undefined;
}
