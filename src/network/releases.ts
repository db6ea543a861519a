// Rules of sandboxes that are gone: taken out of the kernel, and tried again until they are.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";

export interface Releases {
  /** Removes the rules of one that is gone, soon. */
  add(sandboxId: string): void;
  /** Tries no more: the first change of the next life takes the place of all rules. */
  close(): void;
}

export interface ReleasesOptions {
  /** Resolves once the kernel has none of their rules. */
  readonly remove: (sandboxIds: readonly string[]) => Promise<void>;
  /** Whether there is one of that id again, whose rules are its own. */
  readonly isBack: (sandboxId: string) => boolean;
  readonly log: Log;
  /** After a failure. Default: 5 s. */
  readonly retryMs?: number;
}

export function createReleases({ remove, isBack, log, retryMs = 5_000 }: ReleasesOptions): Releases {
  const left = new Set<string>();
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;

  async function removeAll(): Promise<void> {
    const ids = [...left].filter((id) => !isBack(id));
    left.clear();
    if (ids.length === 0) return;
    try {
      await remove(ids);
    } catch (error) {
      log.warn(
        { sandbox: ids.join(" "), err: messageOf(error) },
        "rules of what is gone could not be removed; it is tried again",
      );
      for (const id of ids) left.add(id);
      clearTimeout(timer);
      if (!isClosed) timer = setTimeout(() => void removeAll(), retryMs);
    }
  }

  return {
    add(sandboxId) {
      left.add(sandboxId);
      void removeAll();
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
    },
  };
}
