// Builds what works inside of sandboxes: the toolbox on this host, and the way to it.

import { createHmac } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Config } from "./config/config.ts";
import { cgroupPathsAt } from "./engine/cgroup-path.ts";
import type { Runtime } from "./engine/runtime.ts";
import { createFiles, type Files } from "./files/files.ts";
import type { Host } from "./host/host.ts";
import type { Sampler } from "./monitor/sampler-loop.ts";
import type { Log } from "./observe/log.ts";
import type { Metrics } from "./observe/metrics.ts";
import { createProcesses, type Processes } from "./process/processes.ts";
import type { Clock } from "./sandbox/clock.ts";
import { cgroupParentOf } from "./sandbox/plan.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Store } from "./store/store.ts";
import type { PortLink } from "./toolbox/connection.ts";
import { installToolbox, type Toolbox } from "./toolbox/install.ts";
import { createLink } from "./toolbox/link.ts";

/** Beside the compiled daemon. */
const builtProgram = fileURLToPath(new URL("../toolbox/toolbox", import.meta.url));

export interface ToolboxParts {
  readonly config: Config;
  readonly hostId: string;
  /** The host's secret. */
  readonly key: Buffer;
  readonly log: Log;
}

/** Has the toolbox on this host. Without it the daemon goes on: sandboxes are made that have none. */
export function prepareToolbox({ config, hostId, key, log }: ToolboxParts): Toolbox {
  const directory = config.processes.toolboxDirectory ?? join(config.state.directory, "toolbox");
  // another after the whole state was lost: sandboxes of before may still hold what the engine had mounted for theirs
  const series = createHmac("sha256", key).update("toolbox").digest("hex").slice(0, 8);
  const toolbox = installToolbox({
    program: builtProgram,
    directory,
    // `_` is in none of the names, so that no two of them make one
    volumeOf: (version) => `sandboxd-${hostId}_toolbox_${version}_${series}`,
  });
  const problem = toolbox.problem();
  if (problem !== undefined) {
    log.error(
      { err: problem },
      "the toolbox cannot be installed: nothing can be done inside of new sandboxes",
    );
  }
  return toolbox;
}

export interface InsideOptions {
  readonly config: Config;
  readonly runtime: Runtime;
  readonly repository: Repository;
  readonly store: Store;
  readonly host: Host;
  readonly sampler: Sampler;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

export interface Inside {
  readonly processes: Processes;
  readonly files: Files;
  /** The way there. */
  readonly link: PortLink;
  /** Lets go of all. Processes go on. */
  close(): void;
}

/** What is done inside of sandboxes. */
export function createInside(options: InsideOptions): Inside {
  const { config, repository, store, host, sampler, clock, metrics } = options;
  // what is known of the engine outlasts its absence: what runs is reached without it
  const link = createLink({ ...options, facts: () => host.facts() ?? host.usable() });
  const processes = createProcesses({
    link,
    repository,
    store,
    clock,
    config: config.processes,
    oomCount: (id) => (sampler.sampleNow(id) ?? sampler.latest(id))?.memory.oomKills,
    placeOf(record) {
      const facts = host.facts();
      if (facts === undefined) return undefined;
      const { containerId } = record;
      const place = { containerId, parent: cgroupParentOf(record, facts), version: facts.cgroupVersion };
      return { directory: cgroupPathsAt(place).pids, containerId };
    },
    metrics,
    log: options.log.child("processes"),
  });
  return {
    processes,
    files: createFiles({ link }),
    link,
    close() {
      processes.close();
      link.close();
    },
  };
}
