// Which backend keeps new workspaces within their limits on this host, found out when the daemon starts and again while there is none; and the backends
// of those that are there already.

import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Backend, BackendKind } from "./backend/backend.ts";

/** Why there is none. */
export interface Obstacle {
  readonly obstacle: string;
  readonly hint: string;
}

export type Choice = { readonly backend: Backend } | Obstacle;

export interface Backends {
  /** For new workspaces. @throws SandboxdError WORKSPACES_UNAVAILABLE. */
  current(): Promise<Backend>;
  /** For one that was made with it. @throws SandboxdError WORKSPACE_UNAVAILABLE where it cannot be had here. */
  of(kind: BackendKind): Promise<Backend>;
  /** What is known of it now; undefined until it was first looked at. */
  choice(): Choice | undefined;
  /** What new workspaces may take of the disk, as last looked at. */
  capacityBytes(): number | undefined;
  /** Looks again: for a backend while there is none, and at how much it has. Does not fail. */
  look(): Promise<void>;
}

export interface BackendsOptions {
  /** Finds the one for new workspaces. */
  readonly choose: () => Promise<Choice>;
  /** Opens one of a kind. */
  readonly open: (kind: BackendKind) => Promise<Backend>;
  readonly log: Log;
}

export function createBackends({ choose, open, log }: BackendsOptions): Backends {
  const byKind = new Map<BackendKind, Promise<Backend>>();
  let choice: Choice | undefined;
  let choosing: Promise<Choice> | undefined;
  let capacityBytes: number | undefined;

  async function chosen(): Promise<Choice> {
    if (choice !== undefined && "backend" in choice) return choice;
    choosing ??= look().finally(() => {
      choosing = undefined;
    });
    return choosing;
  }

  async function look(): Promise<Choice> {
    const before = choice;
    try {
      choice = await choose();
    } catch (error) {
      choice = { obstacle: messageOf(error), hint: "CheckHost says what this host lacks" };
    }
    if ("backend" in choice) {
      byKind.set(choice.backend.kind, Promise.resolve(choice.backend));
      await measure(choice.backend);
      log.info({ backend: choice.backend.kind }, "workspaces are kept within their limits");
    } else if (before === undefined || "backend" in before || before.obstacle !== choice.obstacle) {
      log.info({ hint: choice.hint }, `no workspaces on this host: ${choice.obstacle}`);
    }
    return choice;
  }

  async function measure(backend: Backend): Promise<void> {
    try {
      capacityBytes = (await backend.capacity()).bytes;
    } catch (error) {
      log.warn({ err: messageOf(error) }, "the disk of workspaces cannot be measured");
    }
  }

  return {
    async current() {
      const found = await chosen();
      if ("backend" in found) return found.backend;
      throw new SandboxdError("WORKSPACES_UNAVAILABLE", `this host has no workspaces: ${found.obstacle}`, {
        hint: found.hint,
      });
    },
    async of(kind) {
      await chosen();
      const opened = byKind.get(kind) ?? open(kind);
      byKind.set(kind, opened);
      try {
        return await opened;
      } catch (error) {
        byKind.delete(kind);
        throw new SandboxdError(
          "WORKSPACE_UNAVAILABLE",
          `its backend, ${kind}, cannot be used: ${messageOf(error)}`,
          { hint: "CheckHost says what this host lacks", cause: error },
        );
      }
    },
    choice: () => choice,
    capacityBytes: () => capacityBytes,
    async look() {
      const found = await chosen();
      if ("backend" in found) await measure(found.backend);
    },
  };
}
