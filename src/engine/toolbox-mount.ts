// Where the toolbox is in a container, and where its sockets are.

import type { TmpfsMount } from "./container-plan.ts";

/** Nothing else can be mounted there. */
export const toolboxPath = "/.sandboxd";

/** Where the sockets of the toolbox are: in memory, and the container's own. Thousands of them have room. */
export const toolboxRun: TmpfsMount = {
  kind: "tmpfs",
  target: `${toolboxPath}/run`,
  sizeBytes: 65_536,
  inodes: 2_048,
  noExec: true,
};
