// What must hold between the keys of workspaces and of their backups.

import type { Violation } from "./check.ts";
import type { Config } from "./config.ts";

/** Every rule between them that is broken. */
export function workspacesHold({ workspaces, backups, state }: Config): readonly Violation[] {
  const { defaultBytes, maxBytes } = workspaces;
  const directory = workspaces.directory ?? `${state.directory}/workspaces`;
  const found: Violation[] = [];
  if (defaultBytes > maxBytes) {
    found.push({
      keys: ["workspaces.default_bytes", "workspaces.max_bytes"],
      problem: `workspaces.default_bytes, ${defaultBytes}, is more than workspaces.max_bytes, ${maxBytes}`,
    });
  }
  if (backups.to !== "none" && backups[backups.to] === undefined) {
    found.push({
      keys: ["backups.to"],
      problem: `backups.to is "${backups.to}", and backups.${backups.to} is not set`,
    });
  }
  if (backups.directory !== undefined && `${backups.directory}/`.startsWith(`${directory}/`)) {
    found.push({
      keys: ["backups.directory", "workspaces.directory"],
      problem: `backups.directory is in ${directory}, and would be lost with what it is there for`,
      hint: "choose another disk",
    });
  }
  return found;
}
