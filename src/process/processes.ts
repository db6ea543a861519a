// The verbs that callers have of processes in sandboxes.

import { randomBytes } from "node:crypto";
import { SandboxdError } from "../errors.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { HeldProcess } from "./held.ts";
import type { SignalScope } from "./keeper.ts";
import { processesIn } from "./kernel-view.ts";
import { createLauncher } from "./launcher.ts";
import { createPulse } from "./pulse.ts";
import type { OtherProcess, ProcessRecord, ProcessView, TerminalSize } from "./record.ts";
import { processExists, processNotFound, sandboxNotRunning, tooManyRunning } from "./refusals.ts";
import { createRegistry, type Graces, type RegistryOptions, type RetentionConfig } from "./registry.ts";
import { defaultKeepaliveMs, hashOfRequest, type StartRequest, sizeOf, specOf } from "./request.ts";
import { signalOf } from "./signals.ts";
import type { Told } from "./watcher.ts";

/** Which process. */
export interface ProcessKey {
  readonly sandboxId: string;
  readonly processId: string;
}

/** Aborting stops waiting; what was accepted goes on. */
export interface Attending {
  readonly signal: AbortSignal;
}

export interface ConnectRequest extends ProcessKey {
  readonly afterSequence: number;
  readonly keepaliveMs?: number;
  readonly terminal?: TerminalSize;
}

export interface InputRequest extends ProcessKey {
  readonly data: Uint8Array;
  readonly offset?: number;
  readonly closes: boolean;
}

/** What is told of a process: its id, and its events until it has ended. */
export interface Watching {
  readonly processId: string;
  readonly events: AsyncIterable<Told>;
}

export interface Processes {
  /**
   * Takes up what ran when the daemon ended, in the background. To be called once the sandboxes were compared with the engine.
   */
  recover(): void;
  /**
   * @throws SandboxdError INVALID_FIELD, SANDBOX_NOT_FOUND, INVALID_STATE, PROCESS_ALREADY_EXISTS, PROCESS_LIMIT_REACHED, COMMAND_UNUSABLE,
   * FILE_NOT_FOUND, FILE_WRONG_TYPE, FILE_NOT_ALLOWED, TOOLBOX_UNAVAILABLE, STATE_DISK_FULL.
   */
  start(request: StartRequest, attending: Attending): Promise<Watching>;
  /** @throws SandboxdError SANDBOX_NOT_FOUND, PROCESS_NOT_FOUND, SEQUENCE_TRUNCATED. */
  connect(request: ConnectRequest, attending: Attending): Promise<Watching>;
  /** Resolves to the offset after it. @throws SandboxdError PROCESS_NOT_FOUND, INVALID_STATE, INPUT_OUT_OF_ORDER. */
  sendInput(request: InputRequest, attending: Attending): Promise<number>;
  closeInput(key: ProcessKey, attending: Attending): Promise<void>;
  resize(key: ProcessKey, size: TerminalSize, attending: Attending): Promise<void>;
  signal(key: ProcessKey, signal: string, scope: SignalScope, attending: Attending): Promise<void>;
  get(key: ProcessKey): Promise<ProcessView>;
  /** In the order of their start; `others` if they were asked for. */
  list(
    sandboxId: string,
    options: { readonly includeOthers: boolean },
  ): Promise<{ readonly processes: readonly ProcessView[]; readonly others: readonly OtherProcess[] }>;
  /** Lets go of all of them. They go on. */
  close(): void;
}

export interface ProcessesOptions extends Omit<RegistryOptions, "pulse" | "graces"> {
  readonly config: ProcessConfig;
  /** Default: those that the contract tells. */
  readonly graces?: Graces;
}

/** `[processes]` of the configuration. */
export interface ProcessConfig extends RetentionConfig {
  readonly maxRunning: number;
}

const usualGraces: Graces = { disconnectMs: 2_000, goneMs: 2_000 };

const keyOf = (sandboxId: string, processId: string) => `${sandboxId}/${processId}`;

export function createProcesses(options: ProcessesOptions): Processes {
  const { link, repository, clock, config } = options;
  const pulse = createPulse(clock);
  const registry = createRegistry({ ...options, pulse, graces: options.graces ?? usualGraces });
  /** Those that are being started, by key. */
  const starting = new Map<string, Starting>();
  const launch = createLauncher({ link, clock, oomCount: options.oomCount });

  function sandboxOf(sandboxId: string): SandboxRecord {
    const record = repository.get(sandboxId);
    if (record !== undefined) return record;
    throw new SandboxdError("SANDBOX_NOT_FOUND", `there is no sandbox "${sandboxId}"`, {
      metadata: { sandbox_id: sandboxId },
    });
  }

  function find({ sandboxId, processId }: ProcessKey): HeldProcess {
    sandboxOf(sandboxId);
    const process = registry.get(sandboxId, processId);
    if (process === undefined) throw processNotFound(sandboxId, processId);
    return process;
  }

  function runningIn(sandboxId: string): number {
    const running = registry.in(sandboxId).filter((process) => !process.hasEnded());
    return running.length + [...starting.values()].filter((one) => one.sandboxId === sandboxId).length;
  }

  /** The process of a request: the one that there is, the one that is being started, or a new one. */
  async function startedFor(request: StartRequest): Promise<HeldProcess> {
    const sandbox = sandboxOf(request.sandboxId);
    const spec = specOf(request, sandbox.spec.workingDir);
    const id = request.processId || `p-${randomBytes(8).toString("hex")}`;
    const key = keyOf(sandbox.id, id);
    const hash = hashOfRequest(request);
    const known = registry.get(sandbox.id, id);
    const found =
      known === undefined ? starting.get(key) : { hash: known.record.requestHash, started: known };
    if (found !== undefined) {
      if (found.hash !== hash) throw processExists(sandbox.id, id);
      return found.started;
    }
    if (sandbox.state !== "RUNNING") throw sandboxNotRunning(sandbox.id, sandbox.state);
    if (runningIn(sandbox.id) >= config.maxRunning) throw tooManyRunning(sandbox.id, config.maxRunning);
    const { keep, drop } = registry;
    const started = launch({ sandbox, id, hash, spec, keep, drop }).then((launched) =>
      registry.begun(launched, spec.hasInput),
    );
    starting.set(key, { hash, sandboxId: sandbox.id, started });
    // whoever asked may be gone
    started.catch(() => undefined).finally(() => starting.delete(key));
    return started;
  }

  return {
    recover: registry.recover,
    async start(request, { signal }) {
      const process = await startedFor(request);
      await process.known(signal);
      const keepaliveMs = request.keepaliveMs ?? defaultKeepaliveMs;
      return {
        processId: process.record.id,
        events: process.watch({ afterSequence: 0, keepaliveMs, signal }),
      };
    },
    async connect({ afterSequence, keepaliveMs = defaultKeepaliveMs, terminal, ...key }, { signal }) {
      const process = find(key);
      await process.known(signal);
      const events = process.watch({ afterSequence, keepaliveMs, signal });
      if (terminal !== undefined && process.record.terminal !== undefined && !process.hasEnded())
        process.resize(sizeOf(terminal), true);
      return { processId: key.processId, events };
    },
    async sendInput({ data, offset, closes, ...key }, { signal }) {
      const process = find(key);
      await process.known(signal);
      if (closes) refuseTerminal(process.record);
      return process.input.send({ data, closes, signal, ...(offset === undefined ? {} : { offset }) });
    },
    async closeInput(key, { signal }) {
      const process = find(key);
      await process.known(signal);
      refuseTerminal(process.record);
      await process.input.send({ data: new Uint8Array(), closes: true, signal });
    },
    async resize(key, size, { signal }) {
      const process = find(key);
      if (process.record.terminal === undefined && !process.hasEnded()) throw withoutTerminal(process.record);
      await process.reached(signal);
      process.resize(sizeOf(size), false);
    },
    async signal(key, signal, scope, attending) {
      const number = signalOf(signal);
      const process = find(key);
      await process.reached(attending.signal);
      process.signal(number, scope);
    },
    async get(key) {
      const process = find(key);
      await soonKnown([process]);
      return process.view();
    },
    async list(sandboxId, { includeOthers }) {
      const sandbox = sandboxOf(sandboxId);
      const place = includeOthers ? options.placeOf(sandbox) : undefined;
      const seen = place === undefined ? [] : await processesIn(place);
      const byPid = new Map(seen.map((one) => [one.pid, one]));
      const all = registry.in(sandboxId);
      await soonKnown(all);
      const processes = all.map((process) => {
        const view = process.view();
        const other = view.pid === 0 ? undefined : byPid.get(view.pid);
        if (other === undefined) return view;
        byPid.delete(view.pid);
        return { ...view, usage: other.usage };
      });
      processes.sort(
        (a, b) => a.record.startedAtMs - b.record.startedAtMs || (a.record.id < b.record.id ? -1 : 1),
      );
      return { processes, others: [...byPid.values()] };
    },
    close() {
      registry.close();
      pulse.close();
    },
  };
}

interface Starting {
  /** Of the request. */
  readonly hash: string;
  readonly sandboxId: string;
  readonly started: Promise<HeldProcess>;
}

/** What is being found again after a restart is waited for a moment: until then less is known of it. */
async function soonKnown(processes: readonly HeldProcess[]): Promise<void> {
  const unknown = processes.filter((process) => !process.isKnown());
  if (unknown.length === 0) return;
  const signal = AbortSignal.timeout(knownWithinMs);
  await Promise.allSettled(unknown.map((process) => process.known(signal)));
}

const knownWithinMs = 1_000;

function refuseTerminal(record: ProcessRecord): void {
  if (record.terminal === undefined) return;
  throw new SandboxdError(
    "INVALID_STATE",
    `process "${record.id}" has a terminal, whose input is not closed`,
    {
      hint: "send the byte 4 (Ctrl-D): programs that read lines take it for the end",
      metadata: { sandbox_id: record.sandboxId, process_id: record.id },
    },
  );
}

function withoutTerminal({ id, sandboxId }: ProcessRecord): SandboxdError {
  return new SandboxdError("INVALID_STATE", `process "${id}" of sandbox "${sandboxId}" has no terminal`, {
    hint: "start it with a terminal",
    metadata: { sandbox_id: sandboxId, process_id: id },
  });
}
