// Paths inside of sandboxes, as callers give them.

import { invalidField } from "../errors.ts";

/** As the kernel's PATH_MAX. Unit: bytes, without the NUL at the end. */
const mostBytes = 4096;

/** @throws SandboxdError INVALID_FIELD naming the field */
export function checkPath(path: string, field = "path"): void {
  if (!path.startsWith("/")) throw invalidField(field, "must be absolute", "begin it with /");
  if (path.includes("\0")) throw invalidField(field, "must not have a NUL");
  if (Buffer.byteLength(path) > mostBytes) throw invalidField(field, `is longer than ${mostBytes} bytes`);
}

/** Whether a path is the root directory, however it is written. */
export function isRoot(path: string): boolean {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  return names.every((name) => name === "..");
}

/** A name below a directory. */
export function below(directory: string, name: string): string {
  return directory.endsWith("/") ? directory + name : `${directory}/${name}`;
}
