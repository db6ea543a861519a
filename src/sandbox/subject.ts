// What all verbs share: finding the sandbox that they are about, refusing what its state forbids, and waiting for what comes
// of them.

import { type Reason, SandboxdError } from "../errors.ts";
import type { Clock } from "./clock.ts";
import { isExpired } from "./lifetime.ts";
import { type Actor, isSettled, type SandboxRecord, type State, type TransitionReason } from "./record.ts";
import type { Repository } from "./repository.ts";

export interface Asking {
  readonly actor: Actor;
  /** Aborting ends the waiting; what was accepted goes on. */
  readonly signal?: AbortSignal;
}

export interface Subjects {
  /** @throws SandboxdError SANDBOX_NOT_FOUND. */
  get(id: string): SandboxRecord;
  notFound(id: string): SandboxdError;
  /** Waits for the sandbox to come to rest. */
  rested(id: string, instance: string, signal: AbortSignal | undefined): Promise<SandboxRecord>;
  /** As rested(); a start that failed is the caller's error. */
  started(id: string, instance: string, signal: AbortSignal | undefined): Promise<SandboxRecord>;
  /** What is acknowledged lasts, and whoever reads events after the answer finds what led to it. */
  kept(record: SandboxRecord): Promise<SandboxRecord>;
  checkGeneration(record: SandboxRecord, generation: number | undefined): void;
  refuseIfGoing(record: SandboxRecord): void;
  /** `done` is what cannot be done to it in another state, as a participle. */
  refuseUnless(record: SandboxRecord, states: readonly State[], done: string): void;
  /** What its lifetime has ended would be ended again at once. */
  refuseIfExpired(record: SandboxRecord): void;
}

export interface SubjectsOptions {
  readonly repository: Repository;
  readonly clock: Clock;
}

export function createSubjects({ repository, clock }: SubjectsOptions): Subjects {
  function get(id: string): SandboxRecord {
    const record = repository.get(id);
    if (record !== undefined) return record;
    throw notFound(id);
  }

  function notFound(id: string): SandboxdError {
    return new SandboxdError("SANDBOX_NOT_FOUND", `there is no sandbox "${id}"`, {
      metadata: { sandbox_id: id },
    });
  }

  async function rested(
    id: string,
    instance: string,
    signal: AbortSignal | undefined,
  ): Promise<SandboxRecord> {
    const record = await repository.until(id, (now) => now?.instance !== instance || isSettled(now), signal);
    if (record?.instance !== instance) {
      throw new SandboxdError("SANDBOX_NOT_FOUND", `sandbox "${id}" was deleted meanwhile`);
    }
    return kept(record);
  }

  async function started(
    id: string,
    instance: string,
    signal: AbortSignal | undefined,
  ): Promise<SandboxRecord> {
    const record = await rested(id, instance, signal);
    const reason = record.state === "FAILED" ? startFailures[record.transition.reason] : undefined;
    if (reason === undefined) return record;
    throw new SandboxdError(reason, `sandbox "${id}" could not start: ${record.transition.message}`, {
      hint: "the sandbox is kept as FAILED; delete it, or mend the cause and start it",
      metadata: { sandbox_id: id },
    });
  }

  async function kept(record: SandboxRecord): Promise<SandboxRecord> {
    await repository.durable();
    return record;
  }

  function checkGeneration(record: SandboxRecord, generation: number | undefined): void {
    if (generation === undefined || generation === record.generation) return;
    throw new SandboxdError(
      "GENERATION_MISMATCH",
      `sandbox "${record.id}" has generation ${record.generation}, not ${generation}`,
      {
        hint: "get it again and decide anew",
        metadata: { generation: String(record.generation) },
      },
    );
  }

  function refuseIfGoing(record: SandboxRecord): void {
    if (record.wanted !== "DELETED") return;
    throw new SandboxdError("INVALID_STATE", `sandbox "${record.id}" is being deleted`, {
      metadata: { state: record.state },
    });
  }

  function refuseUnless(record: SandboxRecord, states: readonly State[], done: string): void {
    if (states.includes(record.state)) return;
    throw new SandboxdError(
      "INVALID_STATE",
      `sandbox "${record.id}" is ${record.state}; it cannot be ${done}`,
      { metadata: { state: record.state } },
    );
  }

  function refuseIfExpired(record: SandboxRecord): void {
    if (!isExpired(record, clock.nowMs())) return;
    throw new SandboxdError("INVALID_STATE", `the lifetime of sandbox "${record.id}" is over`, {
      hint: "renew it first with RenewSandbox; max_lifetime cannot be renewed",
      metadata: { state: record.state },
    });
  }

  return {
    get,
    notFound,
    rested,
    started,
    kept,
    checkGeneration,
    refuseIfGoing,
    refuseUnless,
    refuseIfExpired,
  };
}

/** Of a start's failures, the error that the caller of that start gets. */
const startFailures: Partial<Record<TransitionReason, Reason>> = {
  IMAGE_UNAVAILABLE: "IMAGE_UNAVAILABLE",
  IMAGE_UNSUPPORTED: "IMAGE_UNSUPPORTED",
  COMMAND_UNUSABLE: "COMMAND_UNUSABLE",
  HARDENING_MISMATCH: "HARDENING_MISMATCH",
  LIMIT_UNENFORCED: "LIMIT_UNENFORCEABLE",
  START_FAILED: "ENGINE_FAILED",
  ENGINE_UNAVAILABLE: "ENGINE_UNAVAILABLE",
  WORKSPACE_UNAVAILABLE: "WORKSPACE_UNAVAILABLE",
  NETWORK_UNAVAILABLE: "NETWORK_UNAVAILABLE",
};
