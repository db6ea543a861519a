// How large the engine's log of a container is on the disk: read past the engine, which has no call that tells it.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

/** Unit: bytes, of all files that the engine has rotated and keeps. 0 where it cannot be told. */
export async function logBytesOf(dataRoot: string, containerId: string): Promise<number> {
  const directory = join(dataRoot, "containers", containerId);
  try {
    const logs = (await readdir(directory)).filter((name) => name.includes("-json.log"));
    const sizes = await Promise.all(logs.map(async (name) => (await stat(join(directory, name))).size));
    return sizes.reduce((sum, size) => sum + size, 0);
  } catch {
    // rotated or removed meanwhile, or on a machine whose disk this process does not see
    return 0;
  }
}
