// FilesystemService: decode, ask the domain, encode. Whoever works with a sandbox's files uses the sandbox.

import { setTimeout as sleep } from "node:timers/promises";
import type { ServiceImpl } from "@connectrpc/connect";
import type { FilesystemService } from "../../gen/sandboxd/v1/filesystem_service_pb.ts";
import { invalidField } from "../errors.ts";
import type { Files } from "../files/files.ts";
import {
  compressionOf,
  fileInfoOf,
  nameOfToken,
  pageTokenOf,
  watchUpdateOf,
  writeTargetOf,
} from "./filesystem-codec.ts";

export interface FilesystemServiceOptions {
  readonly files: Files;
  /** Someone uses the sandbox, until what is returned is called. */
  readonly attach: (id: string) => () => void;
}

const defaultPage = 1_000;
const defaultDirectoryMode = 0o755;
const defaultMaxBytes = 16 * 1024 ** 3;
const defaultMaxEntries = 1_000_000;
const defaultMaxRatio = 200;

export function createFilesystemService({
  files,
  attach,
}: FilesystemServiceOptions): ServiceImpl<typeof FilesystemService> {
  async function using<T>(sandboxId: string, work: () => Promise<T>): Promise<T> {
    const detach = attach(sandboxId);
    try {
      return await work();
    } finally {
      detach();
    }
  }

  async function* streaming<T>(sandboxId: string, items: AsyncIterable<T>): AsyncGenerator<T> {
    const detach = attach(sandboxId);
    try {
      yield* items;
    } finally {
      detach();
    }
  }

  return {
    stat: ({ sandboxId, path, follow }, { signal }) =>
      using(sandboxId, async () => ({
        file: fileInfoOf(await files.stat(sandboxId, path, { follow, signal })),
      })),
    listDirectory: ({ sandboxId, path, pageSize, pageToken }, { signal }) =>
      using(sandboxId, async () => {
        const after = nameOfToken(pageToken, sandboxId, path);
        const page = await files.list(sandboxId, path, { limit: pageSize || defaultPage, after, signal });
        return {
          files: page.files.map(fileInfoOf),
          nextPageToken: page.next === undefined ? "" : pageTokenOf(sandboxId, path, page.next),
        };
      }),
    makeDirectory: ({ sandboxId, path, parents, mode = defaultDirectoryMode }, { signal }) =>
      using(sandboxId, async () => ({
        file: fileInfoOf(await files.makeDirectory(sandboxId, path, { mode, parents, signal })),
      })),
    move: ({ sandboxId, path, newPath, noReplace }, { signal }) =>
      using(sandboxId, async () => ({
        file: fileInfoOf(await files.move(sandboxId, path, newPath, { noReplace, signal })),
      })),
    remove: ({ sandboxId, path, recursive }, { signal }) =>
      using(sandboxId, async () => {
        await files.remove(sandboxId, path, { recursive, signal });
        return {};
      }),
    async *readFile({ sandboxId, path, offset, length }, { signal }) {
      for await (const part of streaming(sandboxId, files.read(sandboxId, path, { offset, length, signal })))
        yield Buffer.isBuffer(part)
          ? { part: { case: "data" as const, value: part as Uint8Array<ArrayBuffer> } }
          : { part: { case: "file" as const, value: fileInfoOf(part) } };
    },
    async writeFile(requests, { signal }) {
      const iterator = requests[Symbol.asyncIterator]();
      try {
        const target = await targetOf(iterator);
        const { sandboxId } = target;
        const file = await using(sandboxId, () =>
          files.write(
            sandboxId,
            writeTargetOf(target),
            wholeOf(iterator, target.sizeBytes !== undefined, signal),
            { signal },
          ),
        );
        return { file: fileInfoOf(file) };
      } finally {
        // a sender that was refused may still be sending
        void iterator.return?.();
      }
    },
    async *downloadArchive({ sandboxId, path, maxBytes, maxEntries, compression }, { signal }) {
      const options = {
        maxBytes: Number(maxBytes) || defaultMaxBytes,
        maxEntries: Number(maxEntries) || defaultMaxEntries,
        compression: compressionOf(compression),
        signal,
      };
      for await (const data of streaming(sandboxId, files.download(sandboxId, path, options)))
        yield { data: data as Uint8Array<ArrayBuffer> };
    },
    async uploadArchive(requests, { signal }) {
      const iterator = requests[Symbol.asyncIterator]();
      try {
        const { sandboxId, path, maxBytes, maxEntries, maxRatio } = await targetOf(iterator);
        const options = {
          maxBytes: Number(maxBytes) || defaultMaxBytes,
          maxEntries: Number(maxEntries) || defaultMaxEntries,
          maxRatio: maxRatio || defaultMaxRatio,
          signal,
        };
        const { bytes, entries } = await using(sandboxId, () =>
          files.upload(sandboxId, path, chunksOf(iterator), options),
        );
        return { bytes: BigInt(bytes), entries: BigInt(entries) };
      } finally {
        void iterator.return?.();
      }
    },
    async *watchDirectory({ sandboxId, path, recursive }, { signal }) {
      for await (const update of streaming(sandboxId, files.watch(sandboxId, path, { recursive, signal })))
        yield { update: watchUpdateOf(update) };
    },
  };
}

/** Messages of a caller that streams: one that says where to, then bytes. */
interface Streamed<Target> {
  readonly part:
    | { readonly case: "target"; readonly value: Target }
    | { readonly case: "data"; readonly value: Uint8Array }
    | { readonly case: undefined; readonly value?: undefined };
}

async function targetOf<Target>(iterator: AsyncIterator<Streamed<Target>>): Promise<NonNullable<Target>> {
  const first = await iterator.next();
  const target =
    first.done === true || first.value.part.case !== "target" ? undefined : first.value.part.value;
  if (target !== undefined && target !== null) return target;
  throw invalidField("target", "the first message must be the target", "send target, then data");
}

/** How long after its end a stream may still be canceled. Unit: milliseconds. */
const secondThoughtMs = 50;

/**
 * The chunks; an error if the caller went away. Some clients, as that of connect-node, end their stream first and cancel it then: without a
 * size to compare with, half of a file would be taken for the whole.
 */
async function* wholeOf(
  iterator: AsyncIterator<Streamed<unknown>>,
  isSized: boolean,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  yield* chunksOf(iterator);
  if (!isSized) await sleep(secondThoughtMs);
  signal.throwIfAborted();
}

async function* chunksOf(iterator: AsyncIterator<Streamed<unknown>>): AsyncGenerator<Uint8Array> {
  for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
    const { part } = next.value;
    if (part.case !== "data") throw invalidField("data", "every message but the first must carry data");
    yield part.value;
  }
}
