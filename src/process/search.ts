// Finds keepers again: of processes whose connection broke, and of those that a state which was lost had known of.

import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "../sandbox/clock.ts";
import { createSlots } from "../sandbox/queue.ts";
import type { SandboxRecord, State } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Link } from "../toolbox/connection.ts";
import { frame, reader } from "../toolbox/protocol.ts";
import type { Search } from "./held.ts";
import { ask } from "./keeper.ts";
import { hasProcesses, type KernelPlace } from "./kernel-view.ts";
import type { ProcessRecord } from "./record.ts";

export interface SearchOptions {
  readonly link: Link;
  readonly repository: Pick<Repository, "get" | "until">;
  readonly clock: Pick<Clock, "nowMs">;
  readonly placeOf: (record: SandboxRecord) => KernelPlace | undefined;
  readonly log: Log;
  /** How long it is looked whether a sandbox whose keeper is gone is just ending. */
  readonly goneGraceMs: number;
}

export interface KeeperSearch {
  keeperOf(record: ProcessRecord, signal: AbortSignal): Promise<Search>;
  /** Tells of every keeper in these sandboxes, of which nothing is known but its id. */
  unknown(sandboxes: readonly SandboxRecord[], found: (record: ProcessRecord) => void): Promise<void>;
  close(): void;
}

/** Keepers looked for at once, after a restart of the daemon. */
const mostAtOnce = 8;
const lookEveryMs = 50;
/** Of what one sandbox says that it has. */
const mostKeepers = 1_024;

const aliveStates: readonly State[] = ["RUNNING", "PAUSING", "PAUSED", "RESUMING", "STOPPING"];

/** Whether the sandbox is still in the run that the process belongs to. */
export function isOfRun(
  sandbox: SandboxRecord | undefined,
  { instance, ranSinceMs }: ProcessRecord,
): boolean {
  return (
    sandbox !== undefined &&
    sandbox.instance === instance &&
    sandbox.ranSinceMs === ranSinceMs &&
    aliveStates.includes(sandbox.state)
  );
}

export function createSearch(options: SearchOptions): KeeperSearch {
  const { link, repository, clock, placeOf, log } = options;
  const slots = createSlots(mostAtOnce);
  const closing = new AbortController();

  /** Its keeper is not there: whether that is because the sandbox ends. */
  async function afterGone(record: ProcessRecord, signal: AbortSignal): Promise<Search> {
    const until = clock.nowMs() + options.goneGraceMs;
    while (!signal.aborted) {
      const sandbox = repository.get(record.sandboxId);
      if (sandbox === undefined || !isOfRun(sandbox, record)) return "sandbox-ended";
      const place = placeOf(sandbox);
      if (place !== undefined && hasProcesses(place) === false) return "sandbox-ended";
      if (clock.nowMs() >= until) return sandbox.state === "RUNNING" ? "lost" : "later";
      await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined);
    }
    return "later";
  }

  async function listIn(sandbox: SandboxRecord): Promise<readonly string[]> {
    const connection = await link.open(sandbox.id, { signal: closing.signal });
    try {
      await connection.send(ask.list());
      const ids: string[] = [];
      while (ids.length < mostKeepers) {
        const next = await connection.receive();
        if (next?.type !== frame.held) return ids;
        const id = reader(next.payload).str();
        if (idPattern.test(id)) ids.push(id);
      }
      return ids;
    } finally {
      connection.close();
    }
  }

  return {
    async keeperOf(record, signal) {
      const { sandboxId, id } = record;
      // frozen, it does not answer, and has not ended
      const sandbox = await repository.until(
        sandboxId,
        (now) => !isOfRun(now, record) || now?.state === "RUNNING" || now?.state === "STOPPING",
        signal,
      );
      if (!isOfRun(sandbox, record)) return "sandbox-ended";
      if (sandbox?.state !== "RUNNING") return afterGone(record, signal);
      try {
        const connection = await slots.run(() => link.openProcess(sandboxId, id, { signal }));
        return connection ?? (await afterGone(record, signal));
      } catch (error) {
        if (!(error instanceof SandboxdError)) throw error;
        log.debug({ sandbox: sandboxId, process: id, reason: error.reason }, "a keeper cannot be reached");
        const place = placeOf(sandbox);
        return place !== undefined && hasProcesses(place) === false ? "sandbox-ended" : "later";
      }
    },
    async unknown(sandboxes, found) {
      const running = sandboxes.filter(({ state, toolbox }) => state === "RUNNING" && toolbox !== undefined);
      const look = async (sandbox: SandboxRecord) => {
        try {
          const ids = await slots.run(() => listIn(sandbox));
          for (const id of ids) found(unknownProcess(sandbox, id, clock.nowMs()));
        } catch (error) {
          if (closing.signal.aborted) return;
          log.warn(
            { sandbox: sandbox.id, err: messageOf(error) },
            "it is not known which processes run in it",
          );
        }
      };
      await Promise.all(running.map(look));
    },
    close: () => closing.abort(),
  };
}

/** As in the contract. */
const idPattern = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

function unknownProcess(sandbox: SandboxRecord, id: string, nowMs: number): ProcessRecord {
  return {
    id,
    sandboxId: sandbox.id,
    instance: sandbox.instance,
    ...(sandbox.ranSinceMs === undefined ? {} : { ranSinceMs: sandbox.ranSinceMs }),
    requestHash: "",
    command: [],
    workingDir: "",
    killGraceMs: 5_000,
    killsOnDisconnect: false,
    waits: false,
    maxWaitMs: 0,
    retainedBytes: 1024 * 1024,
    acceptedAtMs: nowMs,
    startedAtMs: Date.now(),
    oomKills: Number.MAX_SAFE_INTEGER,
    state: "RUNNING",
  };
}
