// The screen of a process with a terminal, as it is now: what it wrote is played to a terminal that nobody sees, and the result is one text
// that paints the same on another. Programs that asked their terminal something are not answered a second time by that.

import type { Client } from "@connectrpc/connect";
import type { Process, ProcessExit } from "../../../../gen/sandboxd/v1/process_pb.ts";
import type { ProcessService } from "../../../../gen/sandboxd/v1/process_service_pb.ts";

/** Lines above the screen that are painted, too, and so can be scrolled back to. */
const scrollback = 1_000;

const clear = "\u001b[H\u001b[2J";

/** What the process wrote until a moment, and where to go on. */
interface Replay {
  readonly output: readonly Uint8Array[];
  /** Of the last event that is in it. */
  readonly sequence: bigint;
  /** Bytes before it that are not retained. */
  readonly droppedBytes: bigint;
  /** Set if it has ended. */
  readonly exit: ProcessExit | undefined;
}

/** What is retained, up to the newest event that `found` knows of. */
export async function replay(client: Client<typeof ProcessService>, found: Process): Promise<Replay> {
  const { sandboxId, processId } = found;
  const output: Uint8Array[] = [];
  let [sequence, droppedBytes] = [0n, 0n];
  let exit: ProcessExit | undefined;
  const reading = new AbortController();
  const stream = client.connectProcess({ sandboxId, processId }, { signal: reading.signal });
  for await (const { event } of stream) {
    if (event === undefined || event.event.case === "keepalive") continue;
    const { case: kind, value } = event.event;
    if (kind === "gap") droppedBytes += value.droppedBytes;
    else sequence = event.sequence;
    if (kind === "terminal" || kind === "stdout" || kind === "stderr") output.push(value);
    if (kind === "exited") exit = value.exit;
    if (kind === "exited" || sequence >= found.lastSequence) break;
  }
  reading.abort();
  return { output, sequence, droppedBytes, exit };
}

/** Paints the screen that this output left on a terminal of the process's size. */
export async function screenText(
  output: readonly Uint8Array[],
  { rows, columns }: { readonly rows: number; readonly columns: number },
): Promise<string> {
  // both are CommonJS in a form whose names cannot be imported
  const { default: headless } = await import("@xterm/headless");
  const { default: serialize } = await import("@xterm/addon-serialize");
  const terminal = new headless.Terminal({ rows, cols: columns, scrollback, allowProposedApi: true });
  const serializer = new serialize.SerializeAddon();
  terminal.loadAddon(serializer);
  for (const chunk of output) await new Promise<void>((resolve) => terminal.write(chunk, resolve));
  const text = serializer.serialize({ scrollback });
  terminal.dispose();
  return clear + text;
}
