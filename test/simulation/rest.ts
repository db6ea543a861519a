// What must hold once nothing is in the way any more and everything had its time.

import { decide, type Observed } from "../../src/sandbox/decide.ts";
import { isSettled, type SandboxRecord } from "../../src/sandbox/record.ts";
import type { Daemon } from "./daemon.ts";
import { isLive, type ModelContainer, type ModelEngine } from "./model-engine.ts";
import { labels } from "./model-host.ts";
import { seen } from "./model-runtime.ts";

export interface View {
  readonly daemon: Daemon | undefined;
  readonly engine: ModelEngine;
  readonly bootId: string;
  readonly idle: ReadonlyMap<string, number>;
  /** Containers of sandboxes that were replaced by others of their id, without a trace of it, are left alone. */
  readonly isStateLost: boolean;
  /** Whether its limits are not known: see "Not met" in docs/faults.md. */
  readonly isUpdateCut: (instance: string) => boolean;
}

/** What is not at rest, or not as recorded; undefined if all is. */
export function restProblem({
  daemon,
  engine,
  bootId,
  idle,
  isUpdateCut,
  isStateLost,
}: View): string | undefined {
  if (daemon === undefined) return "the daemon does not serve";
  const containers = [...engine.containers.values()];
  const identity = (container: ModelContainer) => labels.decode(container.labels);
  for (const container of containers) {
    const of = identity(container);
    if (of !== undefined && !isStateLost && daemon.repository.get(of.id)?.instance !== of.instance) {
      return `I1: container ${container.id} of ${of.id} has no record`;
    }
  }
  for (const record of daemon.repository.all()) {
    const mine = containers.filter((container) => identity(container)?.instance === record.instance);
    if (mine.length > 1) return `I3: ${record.id} has ${mine.length} containers`;
    const [container] = mine;
    const observed: Observed =
      container === undefined
        ? { kind: "absent" }
        : {
            kind: "present",
            container: seen(container) as NonNullable<ReturnType<typeof seen>>,
            oomKills: 0,
            touchedExternally: false,
            ...(idle.has(record.id) ? { idleSinceMs: idle.get(record.id) as number } : {}),
          };
    if (!isSettled(record)) return `${record.id} is ${record.state}, wanted ${record.wanted}`;
    const action = decide(record, observed, { bootId, nowMs: daemon.clock.nowMs() });
    if (action.do === "limit" && isUpdateCut(record.instance)) continue;
    if (action.do !== "nothing") return `for ${record.id}, ${record.state}, there is still to ${action.do}`;
    if (record.state === "RUNNING" && record.bootId !== bootId) {
      return `the limits of ${record.id} were not read back in this boot`;
    }
    const problem = differenceOf(record, container);
    if (problem !== undefined) return problem;
    // what is frozen uses nothing: whether it is sampled does not matter
    if (record.state === "PAUSED") continue;
    const isWatched = record.state === "RUNNING";
    if (daemon.watched.has(record.id) !== isWatched) {
      return `${record.id} is ${record.state} and ${isWatched ? "not " : ""}sampled`;
    }
  }
  for (const id of daemon.watched) {
    if (daemon.repository.get(id) === undefined) return `${id} is gone and still sampled`;
  }
  return undefined;
}

function differenceOf(record: SandboxRecord, container: ModelContainer | undefined): string | undefined {
  const { id, state } = record;
  switch (state) {
    case "RUNNING":
      if (container?.state !== "running") return `${id} is RUNNING; its container is ${container?.state}`;
      if (container.limits.memoryBytes !== record.spec.resources.memoryBytes) {
        return `${id} has a limit of ${container.limits.memoryBytes} bytes, not ${record.spec.resources.memoryBytes}`;
      }
      // somebody's start in the place of a run that ended while nobody listened is not seen: "Not met" in docs/faults.md
      return container.limitsHold || container.startedBy === "external"
        ? undefined
        : `${id} runs without its limits`;
    case "PAUSED":
      return container?.state === "paused"
        ? undefined
        : `${id} is PAUSED; its container is ${container?.state}`;
    default:
      return container !== undefined && isLive(container) ? `${id} is ${state} and runs` : undefined;
  }
}
