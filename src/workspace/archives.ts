// What workspaces hold, out as an archive and in from one.

import { SandboxdError } from "../errors.ts";
import type { ExportOptions } from "./archive/archive.ts";
import { spaceOf, type WorkspaceLimits } from "./record.ts";
import type { Snapshots } from "./snapshots.ts";
import type { Workspaces } from "./workspaces.ts";

export interface Archives {
  /** `snapshotId` empty: the workspace itself, as it is. `maxBytes` 0: twice its size. */
  export(
    id: string,
    snapshotId: string,
    options: { readonly maxBytes: number; readonly signal?: AbortSignal },
  ): AsyncIterable<Uint8Array>;
  /** Bounds of 0 are those of the workspace. */
  import(
    id: string,
    chunks: AsyncIterable<Uint8Array>,
    options: { readonly maxBytes: number; readonly maxEntries: number; readonly signal?: AbortSignal },
  ): Promise<{ readonly bytes: number; readonly entries: number }>;
}

/** Loaded when it is first used. */
async function* exported(options: ExportOptions): AsyncIterable<Uint8Array> {
  const { exportArchive } = await import("./archive/archive.ts");
  yield* exportArchive(options);
}

const bytesPerEntry = 4_096;

/** Of an export: a file of holes has more bytes than it takes room for, and would be read for hours. */
export function usualMaxBytes({ bytes }: Pick<WorkspaceLimits, "bytes">): number {
  return 2 * bytes;
}

export function createArchives(
  workspaces: Pick<Workspaces, "between" | "isInUse">,
  snapshots: Pick<Snapshots, "reading">,
): Archives {
  return {
    export: (id, snapshotId, { maxBytes, signal }) =>
      snapshots.reading(id, snapshotId, (directory, { uid, limits }) =>
        exported({ directory, uid, maxBytes: maxBytes || usualMaxBytes(limits), signal }),
      ),
    import(id, chunks, { maxBytes, maxEntries, signal }) {
      return workspaces.between(
        id,
        async (record, backend) => {
          if (workspaces.isInUse(id)) {
            throw new SandboxdError("WORKSPACE_IN_USE", `sandboxes run with workspace "${id}"`, {
              hint: "stop them first: what they do meanwhile could lead an archive astray",
              metadata: { workspace_id: id },
            });
          }
          const { bytes, inodes } = record.limits;
          const { path } = await backend.ready(spaceOf(record));
          const { importArchive } = await import("./archive/archive.ts");
          return importArchive({
            directory: path,
            uid: record.uid,
            maxBytes: maxBytes || bytes,
            maxEntries: maxEntries || (inodes ?? Math.ceil(bytes / bytesPerEntry)),
            chunks,
            signal,
          });
        },
        { alone: "an archive is being imported" },
      );
    },
  };
}
