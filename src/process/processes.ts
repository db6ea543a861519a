// All processes that were started in sandboxes: the verbs that callers have, what is kept of each, and how they are found again
// after a restart of the daemon.

import { randomBytes } from "node:crypto";
import { SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Store } from "../store/store.ts";
import type { Link } from "../toolbox/connection.ts";
import { createHeldProcess, type HeldProcess } from "./held.ts";
import type { SignalScope } from "./keeper.ts";
import { type KernelPlace, processesIn } from "./kernel-view.ts";
import { createLauncher } from "./launcher.ts";
import { createOutputBudget } from "./output-ring.ts";
import { createPulse } from "./pulse.ts";
import type { OtherProcess, ProcessRecord, ProcessView, TerminalSize } from "./record.ts";
import { processExists, processNotFound, sandboxNotRunning, tooManyRunning } from "./refusals.ts";
import { defaultKeepaliveMs, hashOfRequest, type StartRequest, sizeOf, specOf } from "./request.ts";
import { createRetention } from "./retention.ts";
import { createSearch, isOfRun } from "./search.ts";
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

export interface ProcessesOptions {
  readonly link: Link;
  readonly repository: Pick<Repository, "get" | "all" | "subscribe" | "until">;
  readonly store: Pick<Store, "processDocuments" | "transact" | "durable" | "meta">;
  readonly clock: Pick<Clock, "nowMs">;
  readonly config: ProcessConfig;
  /** Out-of-memory kills counted in a sandbox; undefined if that is not known. */
  readonly oomCount: (sandboxId: string) => number | undefined;
  /** Where the kernel tells of a sandbox's processes; undefined if it is not known yet. */
  readonly placeOf: (record: SandboxRecord) => KernelPlace | undefined;
  readonly metrics: Pick<Metrics, "processes" | "processesEnded" | "processOutput">;
  readonly log: Log;
  /** Default: those that the contract tells. */
  readonly graces?: Graces;
}

export interface Graces {
  /** Time to connect again, after the last stream of a process that is to be ended then. */
  readonly disconnectMs: number;
  /**
   * A keeper that is gone from a sandbox that runs was ended by a program of it, or the sandbox is just ending, which is seen as soon as
   * its last process is gone.
   */
  readonly goneMs: number;
}

const usualGraces: Graces = { disconnectMs: 2_000, goneMs: 2_000 };

/** `[processes]` of the configuration. */
export interface ProcessConfig {
  readonly maxRunning: number;
  readonly maxRetained: number;
  readonly exitRetentionMs: number;
  readonly outputBytes: number;
}

const keyOf = (sandboxId: string, processId: string) => `${sandboxId}/${processId}`;

export function createProcesses(options: ProcessesOptions): Processes {
  const { link, repository, store, clock, config, log, metrics, graces = usualGraces } = options;
  const pulse = createPulse(clock);
  const budget = createOutputBudget(config.outputBytes, (bytes) => metrics.processOutput.set({}, bytes));
  const search = createSearch({ ...options, goneGraceMs: graces.goneMs });
  /** By sandbox, by id, in the order of their start. */
  const held = new Map<string, Map<string, HeldProcess>>();
  /** Those that are being started, by key. */
  const starting = new Map<
    string,
    { readonly hash: string; readonly sandboxId: string; readonly started: Promise<HeldProcess> }
  >();
  const retention = createRetention({ held, pulse, config, forget });
  const launch = createLauncher({ link, clock, oomCount: options.oomCount });
  let isClosed = false;

  function keep(record: ProcessRecord): void {
    store.transact((transaction) =>
      transaction.putProcess(record.sandboxId, record.id, JSON.stringify(record)),
    );
  }

  function hold(record: ProcessRecord, hasInput: boolean): HeldProcess {
    const process = createHeldProcess({
      record,
      hasInput,
      clock,
      pulse,
      budget,
      search: search.keeperOf,
      disconnectGraceMs: graces.disconnectMs,
      async keep(now) {
        // its sandbox may have been deleted meanwhile, with all that was kept of it
        if (held.get(now.sandboxId)?.get(now.id) !== process) return;
        keep(now);
        await store.durable();
      },
      oomKills: () => options.oomCount(record.sandboxId),
      onEnd({ record: { exit } }) {
        metrics.processes.add({}, -1);
        metrics.processesEnded.add({ cause: exit?.cause ?? "UNKNOWN" });
        retention.ended(process);
      },
      onNothing(nothing) {
        metrics.processes.add({}, -1);
        forget(nothing);
      },
      log,
    });
    const ofSandbox = held.get(record.sandboxId) ?? new Map<string, HeldProcess>();
    held.set(record.sandboxId, ofSandbox.set(record.id, process));
    if (record.exit === undefined) metrics.processes.add({}, 1);
    else retention.ended(process);
    return process;
  }

  /** As if it had never been. */
  function forget(process: HeldProcess): void {
    const { sandboxId, id } = process.record;
    const ofSandbox = held.get(sandboxId);
    ofSandbox?.delete(id);
    if (ofSandbox?.size === 0) held.delete(sandboxId);
    process.close();
    store.transact((transaction) => transaction.removeProcess(sandboxId, id));
  }

  /** What a sandbox that has ended takes along, and one that is gone leaves nothing of. */
  function followSandbox(id: string): void {
    const sandbox = repository.get(id);
    for (const process of [...(held.get(id)?.values() ?? [])]) {
      const { record } = process;
      if (sandbox?.instance === record.instance) {
        if (!isOfRun(sandbox, record)) process.sandboxEnded();
        continue;
      }
      forget(process);
      process.sandboxEnded();
    }
  }
  const unfollow = repository.subscribe(followSandbox);

  function sandboxOf(sandboxId: string): SandboxRecord {
    const record = repository.get(sandboxId);
    if (record !== undefined) return record;
    throw new SandboxdError("SANDBOX_NOT_FOUND", `there is no sandbox "${sandboxId}"`, {
      metadata: { sandbox_id: sandboxId },
    });
  }

  function find({ sandboxId, processId }: ProcessKey): HeldProcess {
    sandboxOf(sandboxId);
    const process = held.get(sandboxId)?.get(processId);
    if (process === undefined) throw processNotFound(sandboxId, processId);
    return process;
  }

  function runningIn(sandboxId: string): number {
    let count = 0;
    for (const process of held.get(sandboxId)?.values() ?? []) if (!process.hasEnded()) count++;
    for (const one of starting.values()) if (one.sandboxId === sandboxId) count++;
    return count;
  }

  /** The process of a request: the one that there is, the one that is being started, or a new one. */
  async function startedFor(request: StartRequest): Promise<HeldProcess> {
    const sandbox = sandboxOf(request.sandboxId);
    const spec = specOf(request, sandbox.spec.workingDir);
    const id = request.processId || `p-${randomBytes(8).toString("hex")}`;
    const key = keyOf(sandbox.id, id);
    const hash = hashOfRequest(request);
    const known = held.get(sandbox.id)?.get(id);
    const found =
      known === undefined ? starting.get(key) : { hash: known.record.requestHash, started: known };
    if (found !== undefined) {
      if (found.hash !== hash) throw processExists(sandbox.id, id);
      return found.started;
    }
    if (sandbox.state !== "RUNNING") throw sandboxNotRunning(sandbox.id, sandbox.state);
    if (runningIn(sandbox.id) >= config.maxRunning) throw tooManyRunning(sandbox.id, config.maxRunning);
    const started = launch({ sandbox, id, hash, spec, keep, drop }).then(({ record, connection, status }) => {
      const process = hold(record, spec.hasInput);
      process.begin(connection, status);
      keep(process.record);
      // it may have ended, or been deleted, while the keeper was on its way
      followSandbox(sandbox.id);
      return process;
    });
    starting.set(key, { hash, sandboxId: sandbox.id, started });
    // whoever asked may be gone
    started.catch(() => undefined).finally(() => starting.delete(key));
    return started;
  }

  function drop(record: ProcessRecord): void {
    store.transact((transaction) => transaction.removeProcess(record.sandboxId, record.id));
  }

  return {
    recover() {
      for (const document of store.processDocuments()) {
        const record = JSON.parse(document) as ProcessRecord;
        if (held.get(record.sandboxId)?.has(record.id) || starting.has(keyOf(record.sandboxId, record.id)))
          continue;
        if (repository.get(record.sandboxId)?.instance !== record.instance) drop(record);
        else {
          const process = hold(record, false);
          if (record.exit === undefined) process.resume();
        }
      }
      if (store.meta(knownKey) === "1") return;
      // nothing tells of what an earlier state knew
      void search.unknown(repository.all(), (record) => {
        if (held.get(record.sandboxId)?.has(record.id)) return;
        keep(record);
        hold(record, false).resume();
      });
      store.transact((transaction) => transaction.setMeta(knownKey, "1"));
    },
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
      const all = [...(held.get(sandboxId)?.values() ?? [])];
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
      if (isClosed) return;
      isClosed = true;
      unfollow();
      search.close();
      retention.close();
      for (const ofSandbox of held.values()) for (const process of ofSandbox.values()) process.close();
      pulse.close();
    },
  };
}

/** What is being found again after a restart is waited for a moment: until then less is known of it. */
async function soonKnown(processes: readonly HeldProcess[]): Promise<void> {
  const unknown = processes.filter((process) => !process.isKnown());
  if (unknown.length === 0) return;
  const signal = AbortSignal.timeout(knownWithinMs);
  await Promise.allSettled(unknown.map((process) => process.known(signal)));
}

const knownWithinMs = 1_000;

/** Set once this state knows of every process that was started. */
const knownKey = "processes_known";

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
