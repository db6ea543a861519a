// Files in sandboxes: each verb is one request to the toolbox inside, which does it as the sandbox's user.

import type { Waiting } from "../engine/runtime.ts";
import { invalidField } from "../errors.ts";
import type { Link } from "../toolbox/connection.ts";
import { frame, garbled, mostDataBytes, reader, request } from "../toolbox/protocol.ts";
import { type Download, downloadArchive } from "./archive-download.ts";
import { type Unpacked, type Upload, uploadArchive } from "./archive-upload.ts";
import { exchanging, openExchange } from "./exchange.ts";
import { type FileInfo, fileOf, nextInfo } from "./info.ts";
import { below, checkPath, isRoot } from "./path.ts";
import { type Update, watchDirectory } from "./watch.ts";
import { type WriteTarget, writeFile } from "./write.ts";

export interface Page {
  readonly files: readonly FileInfo[];
  /** The last name, if there are more. Bytes: it may be no text. */
  readonly next: Buffer | undefined;
}

/** Every verb throws SandboxdError: FILE_… as the contract says, TOOLBOX_UNAVAILABLE, and what Link.open throws. */
export interface Files {
  stat(id: string, path: string, options: Waiting & { readonly follow: boolean }): Promise<FileInfo>;
  /** In order of the bytes of their names, those greater than `after`. */
  list(
    id: string,
    path: string,
    options: Waiting & { readonly limit: number; readonly after: Uint8Array },
  ): Promise<Page>;
  makeDirectory(
    id: string,
    path: string,
    options: Waiting & { readonly mode: number; readonly parents: boolean },
  ): Promise<FileInfo>;
  move(
    id: string,
    path: string,
    newPath: string,
    options: Waiting & { readonly noReplace: boolean },
  ): Promise<FileInfo>;
  remove(id: string, path: string, options: Waiting & { readonly recursive: boolean }): Promise<void>;
  /** The file as it was opened, then its bytes: each piece is good until the next is asked for. `length` 0: to the end. */
  read(
    id: string,
    path: string,
    options: Waiting & { readonly offset: bigint; readonly length: bigint },
  ): AsyncGenerator<FileInfo | Buffer, void, undefined>;
  /** The chunks are not read before the toolbox is ready for them, and each is sent before the next is asked for. What they throw leaves the file as it was. */
  write(
    id: string,
    target: WriteTarget,
    chunks: AsyncIterable<Uint8Array>,
    options: Waiting,
  ): Promise<FileInfo>;
  download(id: string, path: string, options: Download): AsyncGenerator<Uint8Array, void, undefined>;
  upload(id: string, path: string, chunks: AsyncIterable<Uint8Array>, options: Upload): Promise<Unpacked>;
  watch(
    id: string,
    path: string,
    options: Waiting & { readonly recursive: boolean },
  ): AsyncGenerator<Update, void, undefined>;
}

export interface FilesOptions {
  readonly link: Link;
}

/** A page ends earlier than asked rather than be larger: most clients take messages of 4 MiB. */
const mostPageBytes = 2 * 1024 * 1024;
/** What an entry takes beside its path and its target. */
const entryBytes = 150;

const mostNameBytes = 255;

/** Of LIST_DIRECTORY: many in a frame, where the toolbox can. */
const together = 1;

export function createFiles({ link }: FilesOptions): Files {
  /** A request that is answered with one INFO. */
  const told = (id: string, bytes: Buffer, path: string, { signal }: Waiting, createsOnly = true) =>
    exchanging(link, id, bytes, waiting(path, signal, createsOnly), async (exchange) =>
      fileOf((await exchange.expect(frame.info)).payload, path),
    );

  return {
    async stat(id, path, { follow, signal }) {
      checkPath(path);
      return told(id, request().str(path).u8(Number(follow)).frame(frame.stat), path, { signal });
    },
    async list(id, path, { limit, after, signal }) {
      checkPath(path);
      const asked = request().str(path).u32(limit).str(after).u8(together).frame(frame.listDirectory);
      return exchanging(link, id, asked, waiting(path, signal), async (exchange) => {
        const files: FileInfo[] = [];
        let bytes = 0;
        let last: Buffer | undefined;
        const pathOf = (name: Buffer) => {
          if (name.length === 0 || name.length > mostNameBytes) throw garbled("a name is impossible");
          last = name;
          return below(path, name.toString("utf8"));
        };
        for (;;) {
          const next = await exchange.receive();
          if (next.type === frame.done) return { files, next: undefined };
          if (next.type === frame.more) return { files, next: reader(next.payload).bytes() };
          if (next.type !== frame.info && next.type !== frame.infos) throw garbled("it sends no list");
          const told = reader(next.payload);
          do {
            if (files.length === limit) throw garbled("its list does not end");
            if (bytes > mostPageBytes) return { files, next: last };
            const file = nextInfo(told, pathOf);
            bytes += entryBytes + file.path.length + file.target.length;
            files.push(file);
          } while (!told.isAtEnd());
        }
      });
    },
    async makeDirectory(id, path, { mode, parents, signal }) {
      checkPath(path);
      const asked = request().str(path).u32(mode).u8(Number(parents)).frame(frame.makeDirectory);
      return told(id, asked, path, { signal });
    },
    async move(id, path, newPath, { noReplace, signal }) {
      checkPath(path);
      checkPath(newPath, "new_path");
      const asked = request().str(path).str(newPath).u8(Number(noReplace)).frame(frame.move);
      const file = await told(id, asked, path, { signal }, noReplace);
      return { ...file, path: newPath };
    },
    async remove(id, path, { recursive, signal }) {
      checkPath(path);
      if (isRoot(path)) throw invalidField("path", "is the root directory", "remove what is in it by name");
      const asked = request().str(path).u8(Number(recursive)).frame(frame.remove);
      await exchanging(link, id, asked, waiting(path, signal), (exchange) =>
        exchange.expect(frame.done, "work"),
      );
    },
    async *read(id, path, { offset, length, signal }) {
      checkPath(path);
      const asked = request().str(path).u64(offset).u64(length).frame(frame.read);
      const exchange = await openExchange(link, id, asked, waiting(path, signal));
      try {
        yield fileOf((await exchange.expect(frame.info)).payload, path);
        for (;;) {
          const next = await exchange.receive();
          if (next.type === frame.done) return;
          if (next.type !== frame.data || next.payload.length > mostDataBytes)
            throw garbled("it sends no data");
          yield next.payload;
          exchange.release(next);
        }
      } finally {
        exchange.close();
      }
    },
    async write(id, target, chunks, options) {
      checkPath(target.path);
      return writeFile(link, id, target, chunks, options);
    },
    async *download(id, path, options) {
      checkPath(path);
      yield* downloadArchive(link, id, path, options);
    },
    async upload(id, path, chunks, options) {
      checkPath(path);
      return uploadArchive(link, id, path, chunks, options);
    },
    async *watch(id, path, options) {
      checkPath(path);
      yield* watchDirectory(link, id, path, options);
    },
  };
}

function waiting(path: string, signal: AbortSignal | undefined, createsOnly = true) {
  return { subject: { path, createsOnly }, ...(signal === undefined ? {} : { signal }) };
}
