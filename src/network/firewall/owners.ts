// Whose an address is, and since when: what was counted for one sandbox is not told of the next one that has its address.

import type { Owner } from "./denials.ts";
import type { State } from "./state.ts";

export interface Owners {
  of(address: string): Owner | undefined;
  /** Returns the addresses that have another owner than before. */
  follow(state: State): readonly string[];
}

export function createOwners(nowMs: () => number): Owners {
  let owners = new Map<string, Owner>();
  return {
    of: (address) => owners.get(address),
    follow({ sandboxes }) {
      const next = new Map<string, Owner>();
      const other: string[] = [];
      for (const [sandboxId, { rules }] of sandboxes) {
        const before = owners.get(rules.address);
        const isSame = before?.sandboxId === sandboxId;
        if (!isSame) other.push(rules.address);
        next.set(rules.address, isSame ? before : { sandboxId, sinceMs: nowMs() });
      }
      owners = next;
      return other;
    },
  };
}
