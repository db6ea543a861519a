// The host as it is now: what it is, what is promised, and which conditions hold. Each change of a condition is an event.

import type { EngineDescription } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import type { Inventory } from "../monitor/inventory.ts";
import type { Log } from "../observe/log.ts";
import { type Capacity, type Promised, promised } from "../sandbox/admission.ts";
import type { EngineHealth, EngineProblem } from "../sandbox/engine-health.ts";
import type { MountSources } from "../sandbox/mount-plan.ts";
import type { HostFacts } from "../sandbox/plan.ts";
import {
  type ConditionFacts,
  type ConditionType,
  conditionTypes,
  type EventDocument,
  type Repository,
} from "../sandbox/repository.ts";
import type { Store } from "../store/store.ts";
import { diskOf } from "./block-device.ts";
import { possibleCpus } from "./capacity.ts";

export interface HostOptions {
  readonly hostId: string;
  readonly bootId: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly cgroupParent: string;
  /** What the configuration lets sandboxes see. */
  readonly mountSources?: MountSources;
  /** The program in each sandbox, by version. */
  readonly toolbox?: Pick<Required<HostFacts>, "toolbox" | "toolboxAt">;
  readonly capacity: Capacity;
  readonly store: Store;
  readonly repository: Repository;
  readonly log: Log;
}

export interface Host {
  readonly hostId: string;
  readonly bootId: string;
  readonly epoch: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly capacity: Capacity;
  promised(): Promised;
  /** In the order of the contract. */
  conditions(): readonly ConditionFacts[];
  engine(): EngineDescription | undefined;
  inventory(): Inventory | undefined;
  /** Whether the engine can be used and the state be written. */
  isUsable(): boolean;
  /** Whether new sandboxes are accepted, as far as conditions go. */
  accepting(): boolean;
  /** The first condition of those under which the host is short of what new sandboxes need. */
  pressure(): ConditionFacts | undefined;
  /** Whether the engine is known not to be usable now. */
  isEngineAway(): boolean;
  /** Undefined while the engine was never reached. */
  facts(): HostFacts | undefined;
  /** @throws SandboxdError ENGINE_UNAVAILABLE naming the condition, or STATE_DISK_FULL. */
  usable(): HostFacts;
  engineIs(health: EngineHealth): void;
  stateIsWritable(writable: boolean): void;
  /** A condition that is found out elsewhere. Its words are those of when it began or ended. */
  conditionIs(type: ConditionType, active: boolean, message: string, hint: string): void;
  inventoryIs(inventory: Inventory): void;
  /** Tells those who subscribed that something else about the host has changed. */
  changed(): void;
  /** Calls back when conditions, promises or facts changed. */
  subscribe(listener: () => void): () => void;
  close(): void;
}

export function createHost(options: HostOptions): Host {
  const { store, repository, log } = options;
  const startedMs = Date.now();
  const conditions = new Map<ConditionType, ConditionFacts>(
    conditionTypes.map((type) => [type, { type, active: false, message: "", hint: "", timeMs: startedMs }]),
  );
  const listeners = new Set<() => void>();
  let engine: EngineDescription | undefined;
  let facts: HostFacts | undefined;
  let inventory: Inventory | undefined;
  let wasReached = false;

  const changed = () => {
    for (const listener of listeners) listener();
  };
  const unsubscribe = repository.subscribe(changed);

  function set(type: ConditionType, active: boolean, message: string, hint: string): void {
    if (conditions.get(type)?.active === active) return;
    const condition = { type, active, message, hint: active ? hint : "", timeMs: Date.now() };
    conditions.set(type, condition);
    log[active ? "warn" : "info"](
      { condition: type, hint: condition.hint },
      `host condition ${active ? "began" : "ended"}: ${message}`,
    );
    if (type !== "STATE_UNWRITABLE") write(condition);
    changed();
  }

  /** While the state cannot be written, a condition is told by GetHost and the log alone. */
  function write(condition: ConditionFacts): void {
    const document = { type: "HOST_CONDITION_CHANGED", condition } satisfies EventDocument;
    try {
      store.transact((transaction) => transaction.appendEvent(condition.timeMs, JSON.stringify(document)));
    } catch (error) {
      log.warn({ condition: condition.type, err: error }, "the condition could not be written as an event");
    }
  }

  function factsOf(description: EngineDescription): HostFacts {
    const isSystemd = description.cgroupDriver === "systemd";
    const name = options.cgroupParent.replace(/^\//, "");
    return {
      hostId: options.hostId,
      cgroupParent: isSystemd ? `${name.replaceAll("/", "-")}.slice` : `/${name}`,
      cgroupVersion: description.cgroupVersion,
      possibleCpus: possibleCpus(),
      blockDevice: diskOf(description.dataRoot),
      ...(options.mountSources === undefined ? {} : { mountSources: options.mountSources }),
      ...options.toolbox,
    };
  }

  const engineProblems: readonly EngineProblem[] = [
    "ENGINE_ABSENT",
    "ENGINE_ACCESS_DENIED",
    "ENGINE_TOO_OLD",
    "ENGINE_UNRESPONSIVE",
    "CGROUP_UNSUPPORTED",
  ];
  const firstActive = (types: readonly ConditionType[]) =>
    types.map((type) => conditions.get(type)).find((one) => one?.active);
  const activeProblem = () => firstActive(engineProblems);
  const pressure = () => firstActive(["MEMORY_PRESSURE", "DISK_PRESSURE", "INODE_PRESSURE", "PID_PRESSURE"]);
  const isUsable = () =>
    wasReached && activeProblem() === undefined && conditions.get("STATE_UNWRITABLE")?.active !== true;

  return {
    hostId: options.hostId,
    bootId: options.bootId,
    epoch: store.epoch,
    labels: options.labels,
    capacity: options.capacity,
    promised: () => promised(repository.all()),
    conditions: () => [...conditions.values()],
    engine: () => engine,
    inventory: () => inventory,
    isUsable,
    accepting: () => isUsable() && pressure() === undefined,
    pressure,
    isEngineAway: () => activeProblem() !== undefined,
    facts: () => facts,
    usable() {
      const problem = activeProblem();
      if (facts !== undefined && problem === undefined) return facts;
      const what = problem === undefined ? "it was not reached yet" : `${problem.type}: ${problem.message}`;
      throw new SandboxdError("ENGINE_UNAVAILABLE", `the engine cannot be used: ${what}`, {
        hint: problem?.hint ?? "try again in a moment",
        retryDelayMs: 2_000,
        metadata: { condition: problem?.type ?? "" },
      });
    },
    engineIs(health) {
      for (const type of engineProblems) {
        if (type !== health.problem) set(type, false, health.message, "");
      }
      if (health.problem !== undefined) set(health.problem, true, health.message, health.hint);
      engine = health.engine ?? engine;
      if (health.problem === undefined && health.engine !== undefined) {
        facts = factsOf(health.engine);
        if (!wasReached) {
          wasReached = true;
          changed();
        }
      }
    },
    stateIsWritable(writable) {
      set(
        "STATE_UNWRITABLE",
        !writable,
        writable ? "the state can be written" : "the state cannot be written",
        "free space on the file system of the state directory",
      );
    },
    conditionIs: set,
    changed,
    inventoryIs(read) {
      inventory = read;
      changed();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: unsubscribe,
  };
}
