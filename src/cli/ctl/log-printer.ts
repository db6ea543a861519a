// Prints the log of a sandbox: standard output to standard output, standard error to standard error.

import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { LogStream, type StreamLogsResponse } from "../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { Context } from "./context.ts";

export interface LogPrinter {
  print(piece: StreamLogsResponse): Promise<void>;
  /** Of the last that was printed, to go on from. Undefined while nothing was. */
  readonly sequence: bigint | undefined;
}

export function createLogPrinter(
  context: Context,
  { timestamps }: { readonly timestamps: boolean },
): LogPrinter {
  // a long line comes in pieces, of which the first alone has the time before it
  const within = new Set<LogStream>();
  let last: bigint | undefined;
  return {
    get sequence() {
      return last;
    },
    async print({ time, stream, data, sequence, gap }) {
      last = sequence;
      if (gap !== undefined) return context.warn("sandboxctl: lines are missing here");
      const output = stream === LogStream.STDERR ? context.stderr : context.stdout;
      if (timestamps && !within.has(stream)) await output.write(`${exactText(time)} `);
      if (data.at(-1) === newline) within.delete(stream);
      else within.add(stream);
      await output.write(data);
    },
  };
}

const newline = 10;

/** With all nine digits, so that `--since` finds the line again. */
function exactText(time: Timestamp | undefined): string {
  if (time === undefined) return "";
  const seconds = new Date(timestampMs({ ...time, nanos: 0 })).toISOString().slice(0, -".000Z".length);
  return `${seconds}.${String(time.nanos).padStart(9, "0")}Z`;
}
