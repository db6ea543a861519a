// What is told of a run of the main command once it has ended: what its samples saw, and the last of its output.

import type { Container, Runtime } from "../engine/runtime.ts";
import { messageOf } from "../errors.ts";
import type { WindowSummary } from "../monitor/window.ts";
import type { Log } from "../observe/log.ts";
import { ageOf } from "./ending.ts";
import type { ExitReport } from "./record.ts";

const mostLines = 20;
const mostLineBytes = 1_024;
/** The event of an end does not wait longer for its output. */
const logDeadlineMs = 500;

export interface ExitReports {
  /** The engine tells that a container has ended: its output is asked for now, beside what else is asked about it then. */
  hasEnded(containerId: string): void;
  /** Of a container that has ended; what cannot be had is left empty, never waited for. */
  of(container: Container, summary: WindowSummary | undefined): Promise<ExitReport>;
  /** The look that its end woke is over: output that it did not use is of no use later. */
  forget(containerId: string): void;
}

interface Tail {
  readonly lines: readonly string[];
  /** Whether nothing went wrong before the end. */
  readonly isWhole: boolean;
}

export function createExitReports(runtime: Pick<Runtime, "logs">, log: Log): ExitReports {
  /** What was asked for already, by container. */
  const tails = new Map<string, Promise<Tail>>();

  async function lastLines(id: string): Promise<Tail> {
    const signal = AbortSignal.timeout(logDeadlineMs);
    const lines: string[] = [];
    let isWhole = false;
    try {
      for await (const { data } of runtime.logs(id, { follow: false, tailLines: mostLines, signal })) {
        lines.push(printable(data));
      }
      isWhole = true;
    } catch (error) {
      log.debug({ container: id, err: messageOf(error) }, "the last output could not be read");
    }
    return { lines: lines.slice(-mostLines), isWhole };
  }

  async function tailOf(id: string): Promise<readonly string[]> {
    const early = await tails.get(id);
    return (early?.isWhole ? early : await lastLines(id)).lines;
  }

  return {
    hasEnded: (id) => tails.set(id, lastLines(id)),
    async of(container, summary) {
      return {
        ageMs: ageOf(container),
        maxMemoryBytes: summary?.memory.maxWorkingSetBytes ?? 0,
        memoryLimitHits: summary?.memory.limitHits ?? 0,
        throttledShare: summary?.cpu.throttledShare ?? 0,
        pidsRefused: summary?.pids.refusedForks ?? 0,
        logTail: await tailOf(container.id),
      };
    },
    forget: (id) => tails.delete(id),
  };
}

/** One line without its end, cut, and with what would move a terminal's cursor or change its colours as escapes. */
function printable(data: Uint8Array): string {
  const text = Buffer.from(data.subarray(0, mostLineBytes))
    .toString("utf8")
    .replace(/\r?\n$/, "");
  return text.replace(/\p{Cc}/gu, (control) =>
    control === "\t" ? control : `\\x${control.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}
