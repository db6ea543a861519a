// A directory for the state that the tests of one file share.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export function stateDirectoryOf(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "sandboxd-processes-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}
