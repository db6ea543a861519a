// Examines the host as a whole: what stands between it and sandboxes that hold what they promise. It changes nothing, and
// looks anew each time.

import type { Config } from "../../config/config.ts";
import type { EngineDiagnosis } from "../../engine/diagnosis.ts";
import type { Waiting } from "../../engine/runtime.ts";
import { messageOf } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import type { Groups } from "../../tenant/groups.ts";
import type { Host } from "../host.ts";
import {
  backupFinding,
  certificateFindings,
  conditionFindings,
  descriptorFinding,
  groupFinding,
  type LogForwardingFacts,
  logForwardingFinding,
  networkFinding,
  probeFinding,
  stateFinding,
  type ToolboxFacts,
  toolboxFinding,
  type WorkspaceFacts,
  workspaceFinding,
} from "./daemon-findings.ts";
import { engineFindings } from "./engine-findings.ts";
import { type Finding, unknown } from "./finding.ts";
import { kernelFindings } from "./kernel-findings.ts";

export interface DoctorOptions {
  readonly runtime: { diagnose(options?: Waiting): Promise<EngineDiagnosis> };
  readonly host: Pick<Host, "conditions">;
  readonly groups: Pick<Groups, "problem">;
  readonly workspaces: WorkspaceFacts;
  readonly logForwarding: LogForwardingFacts;
  readonly toolbox: ToolboxFacts;
  /** Why sandboxes cannot have networks; undefined if they can. */
  readonly networks: { problem(): Promise<string | undefined> };
  /** As it is now: a reload may have changed it. */
  readonly config: () => Config;
}

export interface Doctor {
  /** Asks the engine two questions. Does not fail when that fails: what only the engine knows is then UNKNOWN. */
  examine(options?: Waiting): Promise<readonly Finding[]>;
}

const diskPatienceMs = 2_000;

/** Tells the log what is not as it should be. Never rejects. */
export async function tellFindings(
  doctor: Doctor,
  { signal, log }: { readonly signal: AbortSignal; readonly log: Log },
): Promise<void> {
  try {
    for (const { name, verdict, message, hint, advisories } of await doctor.examine({ signal })) {
      if (verdict === "OK") continue;
      const level = verdict === "FAILED" ? "warn" : "info";
      log[level]({ check: name, verdict, hint, advisories }, message);
    }
  } catch (error) {
    if (!signal.aborted) log.warn({ err: messageOf(error) }, "the host could not be examined");
  }
}

export function createDoctor(options: DoctorOptions): Doctor {
  const { runtime, host, groups, workspaces, toolbox, logForwarding, networks, config } = options;

  async function ofEngine(options: Waiting): Promise<readonly Finding[]> {
    try {
      return engineFindings(await runtime.diagnose(options));
    } catch (error) {
      options.signal?.throwIfAborted();
      return [
        unknown(
          "engine",
          `it could not be examined: ${messageOf(error)}`,
          "mend the engine, and check again",
        ),
      ];
    }
  }

  return {
    async examine(options = {}) {
      const { state, capacity, listen, scheduler, logs, workspaces: wanted } = config();
      const [engine, stateDirectory, probe, spaces, network, certificates] = await Promise.all([
        ofEngine(options),
        stateFinding(state.directory, diskPatienceMs),
        probeFinding(),
        workspaceFinding(workspaces, wanted.backend),
        networks.problem().then(networkFinding),
        certificateFindings(
          {
            "listen.tls.certificate": listen.tls.certificate,
            "listen.tls.client_ca": listen.tls.clientCa,
            "scheduler.tls.certificate": scheduler.tls.certificate,
            "scheduler.tls.ca": scheduler.tls.ca,
            "logs.forward.tls.certificate": logs.forward.tls.certificate,
            "logs.forward.tls.ca": logs.forward.tls.ca,
          },
          Date.now(),
        ),
      ]);
      return [
        ...conditionFindings(host.conditions()),
        ...engine,
        ...kernelFindings(),
        stateDirectory,
        groupFinding(groups.problem()),
        descriptorFinding(capacity.maxSandboxes),
        probe,
        spaces,
        backupFinding(workspaces),
        logForwardingFinding(logForwarding),
        toolboxFinding(toolbox),
        network,
        ...certificates,
      ];
    },
  };
}
