// Copies and removes all that a tenant has put into a directory, whatever that is: trees of any depth, and such as change meanwhile.

import type { Waiting } from "../../engine/runtime.ts";
import { unavailable } from "./failing.ts";
import type { RunTool } from "./tool.ts";

export interface Trees {
  /**
   * Copies a user's directory to a path that is not there, and has it on the disk then. What fails leaves a part of it. The limits
   * of the project that it comes into hold for the copy.
   *
   * @throws SandboxdError WORKSPACE_UNAVAILABLE if something in the copy is not that user's.
   */
  copy(from: string, to: string, uid: number, options?: Waiting): Promise<void>;
  /** Gone is success. */
  remove(paths: readonly string[], options?: Waiting): Promise<void>;
}

/** As long as a directory of some million files takes on a slow disk. */
const timeoutMs = 1_800_000;

/** What a copy needs to read files of any mode, and to give each its owner and mode. */
const capabilities = "+chown,+dac_override,+fowner,+fsetid";

/** As root, a copy would go beyond every limit on ext4: it holds nobody who has SYS_RESOURCE. */
const withoutResource = (uid: number): readonly string[] => [
  ...["--reuid", String(uid), "--regid", String(uid), "--clear-groups"],
  ...[`--inh-caps=-all,${capabilities}`, `--ambient-caps=${capabilities}`],
  "--",
];

export function createTrees(run: RunTool): Trees {
  const work = (program: string, args: readonly string[], { signal }: Waiting) =>
    run(program, args, { timeoutMs, ...(signal === undefined ? {} : { signal }) });

  return {
    async copy(from, to, uid, options = {}) {
      const copying = ["cp", "-a", "--reflink=auto", "--no-target-directory", "--", from, to];
      await work("setpriv", [...withoutResource(uid), ...copying], options);
      // who swaps a directory for a link while it is copied would have a copy of what is not theirs
      const foreign = await work("find", [to, "!", "-uid", String(uid), "-print", "-quit"], options);
      if (foreign.trim() !== "") {
        const what = `is not of user ${uid}, or was changed while it was copied`;
        throw unavailable(`${from} cannot be copied: ${foreign.trim()} ${what}`);
      }
      await work("sync", ["--file-system", to], options);
    },

    // not by Node: a tree can be deeper than a path can be long
    async remove(paths, options = {}) {
      await work("rm", ["-rf", "--one-file-system", "--", ...paths], options);
    },
  };
}
