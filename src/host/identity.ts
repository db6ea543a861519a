// Who this host is: its id and its secret, made once and kept in the state directory in files of their own, so that
// they outlive a lost database.

import { randomBytes, randomUUID } from "node:crypto";
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";

export interface HostIdentity {
  readonly hostId: string;
  /** Signs the labels of this host's containers. 32 bytes. */
  readonly key: Buffer;
}

const keyBytes = 32;

/** Reads or makes both. @throws Error for a key file that is damaged: with another key no container would be known. */
export function openIdentity(directory: string, configuredId: string | undefined): HostIdentity {
  const hostId = configuredId ?? readOrMake(join(directory, "host-id"), () => randomUUID()).trim();
  const keyFile = join(directory, "label.key");
  const key = Buffer.from(readOrMake(keyFile, () => randomBytes(keyBytes).toString("hex")).trim(), "hex");
  if (key.length !== keyBytes) {
    throw new Error(
      `${keyFile} is damaged\nHint: restore it from a backup; without it this host's containers are foreign to it`,
    );
  }
  return { hostId, key };
}

function readOrMake(file: string, make: () => string): string {
  if (existsSync(file)) return readFileSync(file, "utf8");
  const value = make();
  const descriptor = openSync(`${file}.new`, "w", 0o600);
  writeSync(descriptor, value);
  fsyncSync(descriptor);
  closeSync(descriptor);
  renameSync(`${file}.new`, file);
  return value;
}
