// The door to what keeps a directory within its bytes and inodes: a project quota, a btrfs quota group, or a file system in a file. What
// differs between them stays behind it.

import type { Waiting } from "../../engine/runtime.ts";

export const backendKinds = ["PROJECT_QUOTA", "BTRFS", "LOOP_IMAGE"] as const;
export type BackendKind = (typeof backendKinds)[number];

/** What is kept within limits. */
export interface Space {
  /** Of its folder below the backend's directory: `[a-z0-9-]`, at most 63, and nobody else's ever. */
  readonly name: string;
  /** Of everything in it: a tenant's. */
  readonly uid: number;
  /** Of its project quota, where the backend has those: nobody else's ever. 1 to 2^31 - 2; that and 2^31 is of its snapshots. */
  readonly projectId: number;
  readonly limits: SpaceLimits;
}

export interface SpaceLimits {
  readonly bytes: number;
  /** Undefined only where the backend bounds none. */
  readonly inodes?: number;
}

export interface SpaceUsage {
  readonly bytes: number;
  /** Undefined where the backend counts none. */
  readonly inodes?: number;
}

/** What can be told apart of a mount's root, on the host and from inside a container alike. */
export interface FileIdentity {
  /** st_dev. */
  readonly device: number;
  /** st_ino. */
  readonly inode: number;
}

/**
 * Every step may have been done before, wholly or in part, by a daemon that was killed: it is then finished. Steps of one space come one after the
 * other. All reject with SandboxdError: LIMIT_UNENFORCEABLE where a limit cannot be held, with nothing changed; WORKSPACE_UNAVAILABLE where the
 * space is there and cannot be used; WORKSPACE_IN_USE; and what else goes wrong as INTERNAL, with what the tool said.
 */
export interface Backend {
  readonly kind: BackendKind;
  /** Whether it bounds inodes. */
  readonly boundsInodes: boolean;
  /** Whether limits change while sandboxes run with a space. Otherwise only while none does. */
  readonly resizesLive: boolean;
  /** Whether a snapshot is of one moment. Otherwise it is a copy of what should not change meanwhile. */
  readonly isSnapshotAtomic: boolean;
  /** Whether a snapshot takes neither time nor room: its blocks are those of the space. Otherwise who writes may have to wait while it is made. */
  readonly isSnapshotInstant: boolean;
  /** What all spaces together may take of the file system. */
  capacity(): Promise<{ readonly bytes: number; readonly inodes?: number }>;
  /** Makes it within its limits, with the layout in it: `projects`, `tmp`, `cache`, mode 0700, of its uid. Its limits are read back. */
  create(space: Space, options?: Waiting): Promise<void>;
  /** Has it there to be mounted, within its limits: after a reboot as at any time. Resolves to what a container is to see as its mount's root. */
  ready(space: Space, options?: Waiting): Promise<{ readonly path: string; readonly identity: FileIdentity }>;
  /** Changes the limits to those of `space`. Nothing is ever removed. `isInUse`: sandboxes run with it. */
  resize(space: Space, options: Waiting & { readonly isInUse: boolean }): Promise<void>;
  /** Reads a few small files, or asks the kernel once. */
  usage(space: Space): Promise<SpaceUsage>;
  /** Removes it with all that it holds, and its snapshots. Gone is success. Nothing may run with it. */
  remove(space: Space, options?: Waiting): Promise<void>;
  /** Keeps what it holds now under a name: `[a-z0-9-]`, at most 63. Resolves to what it is to be counted as. */
  snapshot(space: Space, name: string, options?: Waiting): Promise<SpaceUsage>;
  /** Has it hold what the snapshot does, which stays; all or nothing. Nothing may run with it. */
  restore(space: Space, name: string, options?: Waiting): Promise<void>;
  /** Gone is success. */
  removeSnapshot(space: Space, name: string, options?: Waiting): Promise<void>;
  /** Where what a snapshot holds can be read, until `close`. */
  openSnapshot(
    space: Space,
    name: string,
    options?: Waiting,
  ): Promise<{ readonly path: string; close(): Promise<void> }>;
  /** Names of the spaces that are there, whole or in part. */
  list(): Promise<readonly string[]>;
  /** Undoes what mounting it took of the host, and leaves all that it holds. Only when nothing runs with any of it. */
  close(): Promise<void>;
}
