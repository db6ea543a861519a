// All commands, in the order of the help.

import { hostCommands } from "./catalogue-host.ts";
import { insideCommands } from "./catalogue-inside.ts";
import { sandboxCommands } from "./catalogue-sandbox.ts";
import type { CommandSpec } from "./command-spec.ts";

export type { CommandSpec };

export const commands: Readonly<Record<string, CommandSpec>> = {
  ...sandboxCommands,
  ...insideCommands,
  ...hostCommands,
};
