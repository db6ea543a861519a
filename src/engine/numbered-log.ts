// A container's log with its numbers: from the engine's files where this process can read them, else from the engine's stream, which
// may lose lines when it rotates the log.

import { access, constants } from "node:fs/promises";
import { dirname } from "node:path";
import { readLogFiles } from "./log-files.ts";
import { createTimeReader, decodeLine } from "./log-line.ts";
import { createNumbers } from "./log-numbers.ts";
import type { LogChunk, LogEntry, NumberedLogOptions, Runtime } from "./runtime.ts";

export interface LogSource {
  /** Where the engine says that it keeps the log; empty before the first start, undefined if there is no such container. */
  pathOf(id: string, options: Pick<NumberedLogOptions, "signal">): Promise<string | undefined>;
  readonly logs: Runtime["logs"];
}

export async function* readNumberedLog(
  { pathOf, logs }: LogSource,
  id: string,
  { after, follow, signal }: NumberedLogOptions,
): AsyncGenerator<readonly LogEntry[]> {
  const waiting = signal === undefined ? {} : { signal };
  const path = await pathOf(id, waiting);
  if (path === undefined || path === "") return;
  if (await isReadable(path))
    yield* fromFiles(path, { ...waiting, follow, ...(after === undefined ? {} : { after }) });
  else yield* fromStream(logs(id, { ...waiting, follow }), after);
}

async function* fromFiles(path: string, { after, follow, signal }: NumberedLogOptions) {
  const numbers = createNumbers<Buffer>(after, { timeOf: createTimeReader(), decode: decodeLine });
  for await (const part of readLogFiles(path, { follow, signal, onOpen: numbers.begins })) {
    switch (part.kind) {
      case "lines": {
        const entries = numbers.entriesOf(part.lines);
        if (entries.length > 0) yield entries;
        break;
      }
      case "gap":
        numbers.lost();
        break;
      case "end":
        numbers.caughtUp();
        break;
    }
  }
}

async function* fromStream(chunks: AsyncIterable<LogChunk>, after: NumberedLogOptions["after"]) {
  const numbers = createNumbers<LogChunk>(after, {
    timeOf: (one) => one.timeNanoseconds,
    decode: (one) => one,
  });
  for await (const chunk of chunks) {
    const entries = numbers.entriesOf([chunk]);
    if (entries.length > 0) yield entries;
  }
  numbers.caughtUp();
}

/** Whether the log, or at least the place where it will be, is there and may be read. */
async function isReadable(path: string): Promise<boolean> {
  const may = (what: string) =>
    access(what, constants.R_OK).then(
      () => true,
      () => false,
    );
  return (await may(path)) || (await may(dirname(path)));
}
