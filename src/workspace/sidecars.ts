// A copy of each workspace's record beside its files, so that losing the daemon's state loses no workspace. Root's alone; read only when the state
// does not know what is there.

import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { spaceOf, type WorkspaceRecord } from "./record.ts";

export interface Sidecars {
  write(record: WorkspaceRecord): Promise<void>;
  /** Gone is success. */
  remove(record: WorkspaceRecord): Promise<void>;
  /** Those of other spaces than these, as far as they can be read. */
  except(names: ReadonlySet<string>): Promise<readonly WorkspaceRecord[]>;
}

const ending = ".json";

/** In `directory`, which is made if it is not there. */
export function createSidecars(directory: string): Sidecars {
  const fileOf = (record: WorkspaceRecord) => join(directory, `${spaceOf(record).name}${ending}`);
  return {
    async write(record) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const file = fileOf(record);
      // not synced: it is only for when the state, which is, was lost
      await writeFile(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
      await rename(`${file}.new`, file);
    },
    remove: (record) => rm(fileOf(record), { force: true }),
    async except(names) {
      const found: WorkspaceRecord[] = [];
      const files = await readdir(directory).catch(() => []);
      for (const file of files.filter((one) => one.endsWith(ending) && !names.has(basename(one, ending)))) {
        try {
          found.push(JSON.parse(await readFile(join(directory, file), "utf8")) as WorkspaceRecord);
        } catch {
          // one that is torn tells nothing; its files stay where they are
        }
      }
      return found;
    },
  };
}
