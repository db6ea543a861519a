// All processes that were started in sandboxes: held in memory, kept in the store while they run and for a while after, followed as their
// sandboxes end, and found again after a restart of the daemon.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Store } from "../store/store.ts";
import type { Link } from "../toolbox/connection.ts";
import { createHeldProcess, type HeldProcess } from "./held.ts";
import type { KernelPlace } from "./kernel-view.ts";
import type { Launched } from "./launcher.ts";
import { createOutputBudget } from "./output-ring.ts";
import type { Pulse } from "./pulse.ts";
import type { ProcessRecord } from "./record.ts";
import { createRetention } from "./retention.ts";
import { createSearch, isOfRun } from "./search.ts";

export interface RegistryOptions {
  readonly link: Link;
  readonly repository: Pick<Repository, "get" | "all" | "subscribe" | "until">;
  readonly store: Pick<Store, "processDocuments" | "transact" | "durable" | "meta">;
  readonly clock: Pick<Clock, "nowMs">;
  readonly pulse: Pulse;
  readonly config: RetentionConfig;
  readonly graces: Graces;
  /** Out-of-memory kills counted in a sandbox; undefined if that is not known. */
  readonly oomCount: (sandboxId: string) => number | undefined;
  /** Where the kernel tells of a sandbox's processes; undefined if it is not known yet. */
  readonly placeOf: (record: SandboxRecord) => KernelPlace | undefined;
  readonly metrics: Pick<Metrics, "processes" | "processesEnded" | "processOutput">;
  readonly log: Log;
}

export interface RetentionConfig {
  readonly maxRetained: number;
  readonly exitRetentionMs: number;
  readonly outputBytes: number;
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

export interface Registry {
  get(sandboxId: string, processId: string): HeldProcess | undefined;
  /** In no order. */
  in(sandboxId: string): readonly HeldProcess[];
  /** @throws SandboxdError STATE_DISK_FULL. */
  keep(record: ProcessRecord): void;
  /** What was kept of one that is not held is to be forgotten. */
  drop(record: ProcessRecord): void;
  /** It runs: holds it from now on. */
  begun(launched: Launched, hasInput: boolean): HeldProcess;
  /** Takes up what was kept by an earlier daemon. */
  recover(): void;
  close(): void;
}

/** Set once this state knows of every process that was started. */
const knownKey = "processes_known";

export function createRegistry(options: RegistryOptions): Registry {
  const { repository, store, clock, pulse, config, graces, metrics, log } = options;
  const budget = createOutputBudget(config.outputBytes, (bytes) => metrics.processOutput.set({}, bytes));
  const search = createSearch({ ...options, goneGraceMs: graces.goneMs });
  /** By sandbox, by id. */
  const held = new Map<string, Map<string, HeldProcess>>();
  const retention = createRetention({
    held,
    pulse,
    config,
    forget(process) {
      release(process);
      drop(process.record);
    },
  });

  function keep(record: ProcessRecord): void {
    store.transact((transaction) =>
      transaction.putProcess(record.sandboxId, record.id, JSON.stringify(record)),
    );
  }

  function drop({ sandboxId, id }: ProcessRecord): void {
    try {
      store.transact((transaction) => transaction.removeProcess(sandboxId, id));
    } catch (error) {
      // the next daemon finds it, and forgets it again
      log.warn(
        { sandbox: sandboxId, process: id, err: messageOf(error) },
        "a process could not be forgotten",
      );
    }
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
      onNothing() {
        metrics.processes.add({}, -1);
        release(process);
        drop(record);
      },
      log,
    });
    const ofSandbox = held.get(record.sandboxId) ?? new Map<string, HeldProcess>();
    held.set(record.sandboxId, ofSandbox.set(record.id, process));
    if (record.exit === undefined) metrics.processes.add({}, 1);
    else retention.ended(process);
    return process;
  }

  function release(process: HeldProcess): void {
    const { sandboxId, id } = process.record;
    const ofSandbox = held.get(sandboxId);
    ofSandbox?.delete(id);
    if (ofSandbox?.size === 0) held.delete(sandboxId);
    process.close();
  }

  /** What a sandbox that has ended takes along, and one that is gone leaves nothing of. */
  function followSandbox(id: string): void {
    const sandbox = repository.get(id);
    for (const process of [...(held.get(id)?.values() ?? [])]) {
      const { record } = process;
      if (sandbox?.instance !== record.instance) release(process);
      if (!isOfRun(sandbox, record)) process.sandboxEnded();
    }
  }
  const unfollow = repository.subscribe(followSandbox);

  return {
    get: (sandboxId, processId) => held.get(sandboxId)?.get(processId),
    in: (sandboxId) => [...(held.get(sandboxId)?.values() ?? [])],
    keep,
    drop,
    begun({ record, connection, status }, hasInput) {
      const process = hold(record, hasInput);
      process.begin(connection, status);
      try {
        keep(process.record);
      } catch (error) {
        // that it was accepted is kept, and its keeper knows the rest
        log.warn(
          { sandbox: record.sandboxId, process: record.id, err: messageOf(error) },
          "a start could not be kept",
        );
      }
      // the sandbox may have ended, or been deleted, while the keeper was on its way
      followSandbox(record.sandboxId);
      return process;
    },
    recover() {
      const isNew = ({ sandboxId, id }: ProcessRecord) => !held.get(sandboxId)?.has(id);
      for (const record of store
        .processDocuments()
        .map((document) => JSON.parse(document) as ProcessRecord)) {
        if (repository.get(record.sandboxId)?.instance !== record.instance) drop(record);
        else if (isNew(record)) {
          const process = hold(record, false);
          if (record.exit === undefined) process.resume();
        }
      }
      if (store.meta(knownKey) === "1") return;
      // nothing tells of what an earlier state knew
      void search.unknown(repository.all(), (record) => {
        if (!isNew(record)) return;
        keep(record);
        hold(record, false).resume();
      });
      store.transact((transaction) => transaction.setMeta(knownKey, "1"));
    },
    close() {
      unfollow();
      search.close();
      retention.close();
      for (const ofSandbox of held.values()) for (const process of ofSandbox.values()) process.close();
    },
  };
}
