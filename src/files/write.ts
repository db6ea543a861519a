// Writes a file in a sandbox: the whole, so that it is there or not, or bytes in place.

import type { Waiting } from "../engine/runtime.ts";
import { invalidField, type SandboxdError } from "../errors.ts";
import type { Link } from "../toolbox/connection.ts";
import { frame, garbled, mostDataBytes, request } from "../toolbox/protocol.ts";
import { exchanging } from "./exchange.ts";
import { type FileInfo, fileOf } from "./info.ts";
import { type Parts, sendAll } from "./sending.ts";

/** Where a file is written, and on what conditions. */
export interface WriteTarget {
  readonly path: string;
  /** Default: that of the file it replaces, else 0644. */
  readonly mode?: number | undefined;
  /** In place, in a file that is there. Default: the whole is replaced. */
  readonly offset?: bigint | undefined;
  readonly createsOnly: boolean;
  /** Empty: not compared. */
  readonly etag: string;
  readonly parents: boolean;
  readonly sizeBytes?: bigint | undefined;
}

/** Of WRITE. */
const flags = { createsOnly: 1, atOffset: 2, parents: 4, sized: 8 } as const;
const defaultMode = 0xffff_ffff;

export async function writeFile(
  link: Link,
  id: string,
  target: WriteTarget,
  chunks: AsyncIterable<Uint8Array>,
  { signal }: Waiting,
): Promise<FileInfo> {
  checkConditions(target);
  const { path, sizeBytes } = target;
  const options = { subject: { path }, ...(signal === undefined ? {} : { signal }) };
  return exchanging(link, id, writeRequest(target), options, async (exchange) => {
    await exchange.expect(frame.ready);
    const answer = await sendAll(exchange, dataFrames(chunks, sizeBytes));
    if (answer.type !== frame.info) throw garbled(`a frame of type ${answer.type}`);
    return fileOf(answer.payload, path);
  });
}

function checkConditions({ offset, createsOnly, etag }: WriteTarget): void {
  if (createsOnly && offset !== undefined) throw invalidField("create_only", "cannot be with offset");
  if (createsOnly && etag !== "") throw invalidField("etag", "cannot be with create_only");
}

function writeRequest({ path, mode, offset, createsOnly, etag, parents, sizeBytes }: WriteTarget): Buffer {
  const said =
    (createsOnly ? flags.createsOnly : 0) |
    (offset === undefined ? 0 : flags.atOffset) |
    (parents ? flags.parents : 0) |
    (sizeBytes === undefined ? 0 : flags.sized);
  return request()
    .str(path)
    .u32(mode ?? defaultMode)
    .u8(said)
    .u64(offset ?? 0n)
    .u64(sizeBytes ?? 0n)
    .str(etag)
    .frame(frame.write);
}

/** Each chunk in pieces that a frame can carry, as they are, behind a header. A sender that has sent too much is not read to its end. */
async function* dataFrames(
  chunks: AsyncIterable<Uint8Array>,
  sizeBytes: bigint | undefined,
): AsyncGenerator<Parts> {
  let bytes = 0n;
  for await (const chunk of chunks) {
    bytes += BigInt(chunk.length);
    if (sizeBytes !== undefined && bytes > sizeBytes) throw wrongSize(sizeBytes, "more came");
    for (let start = 0; start < chunk.length; start += mostDataBytes) {
      const piece = chunk.subarray(start, start + mostDataBytes);
      yield [dataHeader(piece.length), piece];
    }
  }
  if (sizeBytes !== undefined && bytes < sizeBytes) throw wrongSize(sizeBytes, `${bytes} came`);
}

/** Of a DATA frame: its length and type. What it carries follows without being copied. */
function dataHeader(length: number): Buffer {
  const header = Buffer.allocUnsafe(5);
  header.writeUInt32LE(length + 1);
  header.writeUInt8(frame.data, 4);
  return header;
}

function wrongSize(sizeBytes: bigint, what: string): SandboxdError {
  return invalidField("size_bytes", `is ${sizeBytes}, and ${what}`);
}
