// The transitions that the reconciler makes, as values: what each says of who, when and why.

import { isOutOfDescriptors, type Reason, SandboxdError } from "../errors.ts";
import type { Settlement } from "./decide.ts";
import { actors, type SandboxRecord, type State, type TransitionReason } from "./record.ts";

export type Why = Pick<Settlement, "reason" | "message" | "actor">;

export const progress: Why = {
  reason: "PROGRESS",
  message: "its main command runs within its limits",
  actor: actors.policy,
};

/** On its way to run. */
export const starting = (message: string): Settlement => ({
  state: "CREATING",
  reason: "PROGRESS",
  message,
  actor: actors.policy,
});

export const pulling = (reference: string): Settlement => ({
  state: "PULLING",
  reason: "PROGRESS",
  message: `pulling ${reference}`,
  actor: actors.policy,
});

/** Why a container is found running that this daemon did not start just now. */
export function cameToRun({ state, transition }: SandboxRecord): Why {
  switch (state) {
    case "PAUSED":
      return { reason: "EXTERNAL", message: "unpaused behind the daemon", actor: actors.external };
    case "RESUMING":
      return { reason: "REQUESTED", message: "resumed as asked", actor: transition.actor };
    case "BACKING_OFF":
      return { reason: "EXTERNAL", message: "started behind the daemon", actor: actors.external };
    case "RUNNING":
      return { reason: "ADOPTED", message: "found running after a reboot", actor: actors.host };
    default:
      return progress;
  }
}

/** States in which there are processes whose health means something. */
const liveStates: ReadonlySet<State> = new Set(["RUNNING", "PAUSING", "PAUSED", "RESUMING"]);

/** The record after a transition. */
export function moved(record: SandboxRecord, to: Settlement): SandboxRecord {
  const { health, stuck, ranSinceMs, ...kept } = record;
  const { nextAtMs: _, ...restarts } = to.restarts ?? record.restarts ?? { count: 0, recentMs: [] };
  return {
    ...kept,
    state: to.state,
    transition: {
      from: record.state,
      to: to.state,
      reason: to.reason,
      message: to.message,
      actor: to.actor,
      timeMs: Date.now(),
    },
    wanted: to.wanted ?? record.wanted,
    containerId: to.containerId ?? record.containerId,
    endedRun: to.endedRun ?? record.endedRun,
    ...(to.exit === undefined ? {} : { exit: to.exit }),
    ...(ranSinceMs !== undefined && (liveStates.has(to.state) || to.state === "STOPPING")
      ? { ranSinceMs }
      : {}),
    ...(health !== undefined && liveStates.has(to.state) ? { health } : {}),
    // what does not stop is not gone by its deletion
    ...(stuck !== undefined && to.state === "DELETING" ? { stuck } : {}),
    ...(restarts.count === 0
      ? {}
      : { restarts: to.state === "BACKING_OFF" ? (to.restarts ?? restarts) : restarts }),
  };
}

/** The transition that a failed start means; undefined if it is worth another try. */
export function failureReason(error: unknown): TransitionReason | undefined {
  if (isOutOfDescriptors(error)) return undefined;
  if (!(error instanceof SandboxdError)) return "START_FAILED";
  const reasons: Partial<Record<Reason, TransitionReason>> = {
    IMAGE_UNAVAILABLE: "IMAGE_UNAVAILABLE",
    IMAGE_UNSUPPORTED: "IMAGE_UNSUPPORTED",
    COMMAND_UNUSABLE: "COMMAND_UNUSABLE",
    HARDENING_MISMATCH: "HARDENING_MISMATCH",
    LIMIT_UNENFORCEABLE: "LIMIT_UNENFORCED",
    ENGINE_FAILED: "START_FAILED",
    WORKSPACE_UNAVAILABLE: "WORKSPACE_UNAVAILABLE",
    WORKSPACE_NOT_FOUND: "WORKSPACE_UNAVAILABLE",
    NETWORK_UNAVAILABLE: "NETWORK_UNAVAILABLE",
    ADDRESS_EXHAUSTED: "NETWORK_UNAVAILABLE",
  };
  return reasons[error.reason];
}
