// Messages that are mostly bytes, encoded without copying those: a head that says how many follow, then the bytes themselves. The protocol
// library's encoder makes four more copies of each, which is most of what sending output and files costs.

import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import {
  type DownloadArchiveResponse,
  DownloadArchiveResponseSchema,
  type ReadFileResponse,
  ReadFileResponseSchema,
} from "../../gen/sandboxd/v1/filesystem_service_pb.ts";
import {
  type ForwardPortResponse,
  ForwardPortResponseSchema,
} from "../../gen/sandboxd/v1/port_service_pb.ts";
import type { ProcessEvent } from "../../gen/sandboxd/v1/process_pb.ts";
import {
  ConnectProcessResponseSchema,
  StartProcessResponseSchema,
} from "../../gen/sandboxd/v1/process_service_pb.ts";
import {
  type ExportWorkspaceResponse,
  ExportWorkspaceResponseSchema,
} from "../../gen/sandboxd/v1/workspace_service_pb.ts";
import { leastSentBytes } from "./response-writer.ts";

/** A message in two parts, which follow each other on the wire. */
interface Parts {
  readonly head: Uint8Array;
  readonly bytes: Uint8Array;
}

const empty = new Uint8Array();

/** Fewer are copied, since whoever made them may use their memory again when the next are asked for. */
const leastBulkBytes = leastSentBytes;

type Split<T> = (message: T) => Parts | undefined;

const splits: ReadonlyMap<string, Split<unknown>> = new Map([
  entry(StartProcessResponseSchema, ({ event }) => splitEvent(event)),
  entry(ConnectProcessResponseSchema, ({ event }) => splitEvent(event)),
  entry(ReadFileResponseSchema, ({ part }: ReadFileResponse) =>
    part.case === "data" ? bulk(2, part.value) : undefined,
  ),
  entry(DownloadArchiveResponseSchema, ({ data }: DownloadArchiveResponse) => bulk(1, data)),
  entry(ForwardPortResponseSchema, ({ data, end }: ForwardPortResponse) => (end ? undefined : bulk(1, data))),
  entry(ExportWorkspaceResponseSchema, ({ data }: ExportWorkspaceResponse) => bulk(1, data)),
]);

function entry<Desc extends DescMessage>(
  { typeName }: Desc,
  split: Split<MessageShape<Desc>>,
): readonly [string, Split<unknown>] {
  return [typeName, split as Split<unknown>];
}

/** Whether messages of this type can be mostly bytes. */
export const isBulky = ({ typeName }: DescMessage): boolean => splits.has(typeName);

/** The parts of a message in which there are many bytes; undefined for one that is encoded like any other. */
export function splitMessage(schema: DescMessage, message: unknown): Parts | undefined {
  return splits.get(schema.typeName)?.(message);
}

const eventField = 1;
const sequenceField = 1;
const outputFields = { stdout: 3, stderr: 4, terminal: 5 } as const;

/** The event's fields may come in any order, so what is not output comes first. */
function splitEvent(event: ProcessEvent | undefined): Parts | undefined {
  const { case: kind, value } = event?.event ?? {};
  if (event === undefined || (kind !== "stdout" && kind !== "stderr" && kind !== "terminal"))
    return undefined;
  if (value === undefined || value.length < leastBulkBytes) return undefined;
  const inner = headOf(outputFields[kind], value.length, [
    tagOf(sequenceField, varint),
    ...varintOf(Number(event.sequence)),
  ]);
  return { head: headOf(eventField, inner.length + value.length, [], inner), bytes: value };
}

function bulk(field: number, bytes: Uint8Array): Parts | undefined {
  return bytes.length < leastBulkBytes ? undefined : { head: headOf(field, bytes.length, []), bytes };
}

// https://protobuf.dev/programming-guides/encoding/
const varint = 0;
const lengthDelimited = 2;

const tagOf = (field: number, wireType: number): number => (field << 3) | wireType;

function varintOf(value: number): readonly number[] {
  const bytes: number[] = [];
  let left = value;
  for (; left > 0x7f; left = Math.floor(left / 0x80)) bytes.push((left % 0x80) | 0x80);
  return [...bytes, left];
}

/** A field that is `length` long, with what comes before it, and with what it begins with. */
function headOf(field: number, length: number, before: readonly number[], begin: Uint8Array = empty): Buffer {
  const words = Buffer.from([...before, tagOf(field, lengthDelimited), ...varintOf(length)]);
  return begin.length === 0 ? words : Buffer.concat([words, begin]);
}
