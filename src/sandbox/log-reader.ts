// Reads what a sandbox's main command wrote, over stops and starts of the sandbox, each of which may bring another container with
// a log of its own, and over restarts of the engine.

import { setTimeout as sleep } from "node:timers/promises";
import type { LogChunk, LogEntry, LogPosition, NumberedLogs, Runtime } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import type { LabelCodec } from "./labels.ts";
import { lookUp } from "./lookup.ts";
import type { HostFacts } from "./plan.ts";
import type { SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";

export interface LogQuery {
  /** Whether to wait for more, until the sandbox is gone. */
  readonly follow: boolean;
  /** Only lines with greater numbers. Left out: from the oldest that is there. */
  readonly afterSequence?: bigint;
  /** Where that number was seen: in a log before this one's, nothing of this one is missing. Left out: in whichever there is. */
  readonly afterContainer?: string;
  /** Only what was written at this time or later. */
  readonly sinceNanoseconds?: bigint;
  /** Only so many lines of those that are there now. */
  readonly tailLines?: number;
  readonly stream?: LogChunk["stream"];
  readonly signal?: AbortSignal;
}

/** Some entries of the log of one container. */
export interface LogBatch {
  readonly containerId: string;
  readonly entries: readonly LogEntry[];
}

export interface LogReader {
  /**
   * What is there of the sandbox's log, and what follows. @throws SandboxdError SANDBOX_NOT_FOUND at once, SEQUENCE_TRUNCATED for a
   * number from the future, and what keeps the engine from being asked at the beginning; a follower waits for its return.
   */
  read(record: SandboxRecord, query: LogQuery): AsyncIterable<LogBatch>;
}

export interface LogReaderOptions {
  readonly repository: Pick<Repository, "get" | "until">;
  readonly runtime: Pick<Runtime, "inspect"> & NumberedLogs;
  readonly labels: LabelCodec;
  /** @throws SandboxdError ENGINE_UNAVAILABLE while the engine cannot be used. */
  readonly host: () => Pick<HostFacts, "hostId">;
}

const retryMs = 500;

export function createLogReader({ repository, runtime, labels, host }: LogReaderOptions): LogReader {
  async function containerOf(record: SandboxRecord, { signal }: LogQuery): Promise<string | undefined> {
    const waiting = signal === undefined ? {} : { signal };
    const found = await lookUp(record, { runtime, labels, hostId: host().hostId, ...waiting });
    return found.kind === "own" ? found.container.id : undefined;
  }

  async function* whole(record: SandboxRecord, query: LogQuery): AsyncGenerator<LogBatch> {
    const { follow, signal, afterSequence } = query;
    let seen =
      afterSequence === undefined ? undefined : { sequence: afterSequence, in: query.afterContainer };
    let hasBegun = false;
    for (;;) {
      const now = repository.get(record.id);
      if (now?.instance !== record.instance) return;
      try {
        const containerId = await containerOf(now, query);
        hasBegun = true;
        if (containerId !== undefined) {
          const after: LogPosition | undefined = seen && {
            sequence: seen.sequence,
            isOfThisLog: seen.in === undefined || seen.in === containerId,
          };
          const asked = { follow, ...(signal && { signal }), ...(after && { after }) };
          for await (const entries of runtime.numberedLog(containerId, asked)) {
            yield { containerId, entries };
            const last = entries.at(-1);
            if (last !== undefined) seen = { sequence: last.sequence, in: containerId };
          }
        }
      } catch (error) {
        if (!follow || !hasBegun || !isEngineAway(error)) throw error;
        await sleep(retryMs, undefined, { signal });
        continue;
      }
      if (!follow) return;
      signal?.throwIfAborted();
      await repository.until(record.id, (next) => next !== now, signal);
    }
  }

  /** The number from which on the last lines are those asked for: the log is read twice, so that none of it is held. */
  async function beginningOfTail(record: SandboxRecord, query: LogQuery, lines: number): Promise<bigint> {
    const sequences: bigint[] = [];
    let next = 0;
    let newest = 0n;
    for await (const { entries } of whole(record, { ...query, follow: false })) {
      for (const entry of entries) {
        newest = entry.sequence;
        if (lines === 0 || !isAsked(entry, query)) continue;
        sequences[next] = entry.sequence;
        next = (next + 1) % lines;
      }
    }
    return sequences[sequences.length < lines ? 0 : next] ?? newest + 1n;
  }

  return {
    async *read(record, query) {
      const from = query.tailLines === undefined ? 0n : await beginningOfTail(record, query, query.tailLines);
      for await (const { containerId, entries } of whole(record, query)) {
        const asked = entries.filter((entry) => entry.sequence >= from && isAsked(entry, query));
        if (asked.length > 0) yield { containerId, entries: asked };
      }
    },
  };
}

function isAsked(entry: LogEntry, { stream, sinceNanoseconds }: LogQuery): boolean {
  if (entry.kind === "gap") return true;
  return (
    (stream === undefined || entry.stream === stream) &&
    (sinceNanoseconds === undefined || entry.timeNanoseconds >= sinceNanoseconds)
  );
}

/** Whether asking again later may help, because the engine is being restarted, or is busy. */
function isEngineAway(error: unknown): boolean {
  return (
    error instanceof SandboxdError &&
    ["ENGINE_UNAVAILABLE", "ENGINE_TIMEOUT", "ENGINE_FAILED"].includes(error.reason)
  );
}
