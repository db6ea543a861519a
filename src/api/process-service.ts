// ProcessService: decode, ask the domain, encode.

import type { ServiceImpl } from "@connectrpc/connect";
import type { ProcessService } from "../../gen/sandboxd/v1/process_service_pb.ts";
import { invalidField } from "../errors.ts";
import type { Processes, ProcessKey, Watching } from "../process/processes.ts";
import type { ProcessView, TerminalSize } from "../process/record.ts";
import type { Told } from "../process/watcher.ts";
import { otherProcessOf, processEventOf, processOf, scopeOf, startRequestOf } from "./process-codec.ts";
import { millisecondsOf } from "./time-codec.ts";

export interface ProcessServiceOptions {
  readonly processes: Processes;
  /** Someone uses the sandbox, until what is returned is called. */
  readonly attach: (id: string) => () => void;
}

const defaultPage = 100;

export function createProcessService({
  processes,
  attach,
}: ProcessServiceOptions): ServiceImpl<typeof ProcessService> {
  /** What is watched is in use. */
  async function* watched(sandboxId: string, begin: () => Promise<Watching>): AsyncGenerator<Told> {
    const detach = attach(sandboxId);
    try {
      const { events } = await begin();
      yield* events;
    } finally {
      detach();
    }
  }

  return {
    async *startProcess(request, { signal }) {
      const begin = () => processes.start(startRequestOf(request), { signal });
      for await (const told of watched(request.sandboxId, begin)) yield { event: processEventOf(told) };
    },
    async *connectProcess({ sandboxId, processId, afterSequence, keepalive, terminal }, { signal }) {
      const begin = () =>
        processes.connect(
          {
            ...keyOf(sandboxId, processId),
            afterSequence: Number(afterSequence),
            ...(keepalive === undefined ? {} : { keepaliveMs: millisecondsOf(keepalive) }),
            ...(terminal === undefined ? {} : { terminal: sizeOf(terminal) }),
          },
          { signal },
        );
      for await (const told of watched(sandboxId, begin)) yield { event: processEventOf(told) };
    },
    async sendInput({ sandboxId, processId, data, offset, close }, { signal }) {
      const request = { ...keyOf(sandboxId, processId), data, closes: close };
      const place = offset === undefined ? {} : { offset: Number(offset) };
      return { offset: BigInt(await processes.sendInput({ ...request, ...place }, { signal })) };
    },
    async closeInput({ sandboxId, processId }, { signal }) {
      await processes.closeInput(keyOf(sandboxId, processId), { signal });
      return {};
    },
    async resizeTerminal({ sandboxId, processId, size }, { signal }) {
      const { rows = 0, columns = 0 } = size ?? {};
      await processes.resize(keyOf(sandboxId, processId), { rows, columns }, { signal });
      return {};
    },
    async signalProcess({ sandboxId, processId, signal: name, scope }, { signal }) {
      await processes.signal(keyOf(sandboxId, processId), name, scopeOf(scope), { signal });
      return {};
    },
    async getProcess({ sandboxId, processId }) {
      return { process: processOf(await processes.get(keyOf(sandboxId, processId))) };
    },
    async listProcesses({ sandboxId, includeOthers, pageSize, pageToken }) {
      const after = pageToken === "" ? undefined : placeOfToken(pageToken);
      const { processes: all, others } = await processes.list(sandboxId, { includeOthers });
      const rest = after === undefined ? all : all.filter((view) => isAfter(view, after));
      const page = rest.slice(0, pageSize || defaultPage);
      const last = page.at(-1);
      const hasMore = rest.length > page.length && last !== undefined;
      return {
        processes: [
          ...page.map(processOf),
          ...(hasMore ? [] : others.map((other) => otherProcessOf(sandboxId, other))),
        ],
        nextPageToken: hasMore ? tokenOf(last) : "",
      };
    },
  };
}

const keyOf = (sandboxId: string, processId: string): ProcessKey => ({ sandboxId, processId });

const sizeOf = ({ rows, columns }: TerminalSize): TerminalSize => ({ rows, columns });

/** Of the last one told: they come in the order of their start. */
interface Place {
  readonly startedAtMs: number;
  readonly id: string;
}

function isAfter({ record }: ProcessView, { startedAtMs, id }: Place): boolean {
  return record.startedAtMs > startedAtMs || (record.startedAtMs === startedAtMs && record.id > id);
}

const tokenPrefix = "process:";

function tokenOf({ record: { startedAtMs, id } }: ProcessView): string {
  return Buffer.from(`${tokenPrefix}${startedAtMs}:${id}`).toString("base64url");
}

function placeOfToken(token: string): Place {
  const text = Buffer.from(token, "base64url").toString("utf8");
  const [, time, id] = /^process:([0-9.]+):([a-z0-9-]+)$/.exec(text) ?? [];
  if (time !== undefined && id !== undefined) return { startedAtMs: Number(time), id };
  throw invalidField("page_token", "is not a token of this host", "start again without a page token");
}
