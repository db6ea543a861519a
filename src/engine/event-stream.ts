// The engine's event stream: one JSON object a line, over any cut of its chunks.

import type { Readable } from "node:stream";
import type Docker from "dockerode";
import { messageOf, SandboxdError } from "../errors.ts";
import { engineError } from "./calls.ts";
import type { EngineEvent, EventOptions } from "./runtime.ts";

interface RawEvent {
  readonly Action?: string;
  readonly Actor?: { readonly ID?: string; readonly Attributes?: Readonly<Record<string, string>> };
}

/** What the engine tells of: not what concerns execs and images, of which there is much. */
const toldActions = ["start", "die", "kill", "pause", "unpause", "destroy", "rename", "update"] as const;

const longestLineBytes = 4 * 1024 * 1024;

/** Lines of a stream of text, without their ends. @throws Error for a line longer than 4 MiB. */
export async function* readLines(source: AsyncIterable<Buffer>): AsyncIterable<string> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      yield rest.subarray(0, end).toString("utf8");
      rest = rest.subarray(end + 1);
    }
    if (rest.length > longestLineBytes) throw new Error(`a line of more than ${longestLineBytes} bytes`);
  }
}

/** Events of containers with the label. Ends with an error whenever the connection does. */
export async function* readEvents(
  docker: Docker,
  label: string,
  { onOpen, sinceNanos, signal }: EventOptions,
): AsyncIterable<EngineEvent> {
  let stream: Readable | undefined;
  const end = () => stream?.destroy();
  signal.addEventListener("abort", end, { once: true });
  try {
    const filters = JSON.stringify({ type: ["container"], label: [label], event: toldActions });
    const since = sinceNanos === undefined ? {} : { since: timeOf(sinceNanos) };
    // the client's types take whole seconds only
    const query: object = { filters, ...since, abortSignal: signal };
    stream = (await docker.getEvents(query)) as Readable;
    onOpen();
    for await (const line of readLines(stream)) {
      if (line === "") continue;
      const raw = JSON.parse(line) as RawEvent;
      yield {
        containerId: raw.Actor?.ID ?? "",
        action: raw.Action ?? "",
        labels: raw.Actor?.Attributes ?? {},
        timeNanos: timeNanosIn(line),
      };
    }
  } catch (error) {
    throw engineError("list", error);
  } finally {
    signal.removeEventListener("abort", end);
    stream?.destroy();
  }
  throw new SandboxdError(
    "ENGINE_UNAVAILABLE",
    `the engine ended its event stream: ${messageOf(signal.reason ?? "closed")}`,
  );
}

/** As a number, the field has lost its last digits. Inside of a text, its quotes would be escaped. */
const timeNanosIn = (line: string): bigint => BigInt(/"timeNano":(\d+)/.exec(line)?.[1] ?? 0);

/** A time as the engine takes it: seconds with nine decimals. */
export function timeOf(nanos: bigint): string {
  return `${nanos / 1_000_000_000n}.${String(nanos % 1_000_000_000n).padStart(9, "0")}`;
}
