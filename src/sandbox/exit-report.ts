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

/** Assembles the report of a container that has ended; what cannot be had is left empty, never waited for. */
export async function reportOf(
  runtime: Pick<Runtime, "logs">,
  container: Container,
  summary: WindowSummary | undefined,
  log: Log,
): Promise<ExitReport> {
  return {
    ageMs: ageOf(container),
    maxMemoryBytes: summary?.memory.maxWorkingSetBytes ?? 0,
    memoryLimitHits: summary?.memory.limitHits ?? 0,
    throttledShare: summary?.cpu.throttledShare ?? 0,
    pidsRefused: summary?.pids.refusedForks ?? 0,
    logTail: await lastLines(runtime, container.id, log),
  };
}

async function lastLines(runtime: Pick<Runtime, "logs">, id: string, log: Log): Promise<readonly string[]> {
  const signal = AbortSignal.timeout(logDeadlineMs);
  const lines: string[] = [];
  try {
    for await (const { data } of runtime.logs(id, { follow: false, tailLines: mostLines, signal })) {
      lines.push(printable(data));
    }
  } catch (error) {
    log.debug({ container: id, err: messageOf(error) }, "the last output could not be read");
  }
  return lines.slice(-mostLines);
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
