// Follows the log of every sandbox of the host and hands each line, with what it is of, to the buffer of what is sent. One reader for
// each sandbox, from where the last one of it ended, also in an earlier life of the daemon.

import { setTimeout as sleep } from "node:timers/promises";
import type { TagPlaceholder } from "../config/log-shipping.ts";
import type { LogEntry } from "../engine/runtime.ts";
import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { LogReader } from "../sandbox/log-reader.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { ForwardBuffer } from "./forward-buffer.ts";
import { encodeEntry } from "./forward-protocol.ts";
import { createPace } from "./pace.ts";
import type { Places } from "./places.ts";

export interface ShipperOptions {
  readonly hostId: string;
  /** With placeholders. */
  readonly tag: string;
  readonly repository: Pick<Repository, "all" | "get" | "subscribe">;
  readonly reader: LogReader;
  readonly places: Places;
  readonly buffer: ForwardBuffer;
  /** Something was put into the buffer. */
  readonly filled: () => void;
  /** Lines were lost before they could be read. */
  readonly gap: () => void;
  readonly log: Log;
}

export interface Shipper {
  close(): Promise<void>;
}

const retryMs = 2_000;
/** Between the first questions to the engine for two sandboxes, when there are many at the start. */
const staggerMs = 5;

export function createShipper(options: ShipperOptions): Shipper {
  const { repository, reader, places, buffer, log } = options;
  const closing = new AbortController();
  const { signal } = closing;
  const pace = createPace();
  /** By instance. */
  const following = new Map<string, Promise<void>>();

  async function follow(record: SandboxRecord, delayMs: number): Promise<void> {
    const { id: sandboxId, instance } = record;
    const tag = tagOf(options.tag, record, options.hostId);
    const ofAll = fieldsOf(record, options.hostId);
    let read = places.get(sandboxId);
    if (read?.instance !== instance) read = undefined;
    await sleep(delayMs, undefined, { signal }).catch(() => undefined);
    while (!signal.aborted && repository.get(sandboxId)?.instance === instance) {
      try {
        const from = read && { afterSequence: read.sequence, afterContainer: read.containerId };
        for await (const { containerId, entries } of reader.read(record, { follow: true, signal, ...from })) {
          let bytes = 0;
          for (const entry of entries) {
            read = { sandboxId, instance, containerId, sequence: entry.sequence };
            if (entry.kind === "gap") {
              options.gap();
              continue;
            }
            const encoded = encodeEntry({
              timeNanoseconds: entry.timeNanoseconds,
              fields: { ...lineOf(entry), ...ofAll },
            });
            bytes += encoded.length;
            buffer.push(tag, encoded, read);
          }
          options.filled();
          await pace.after(entries.length, bytes, signal);
        }
        return;
      } catch (error) {
        if (signal.aborted) return;
        log.debug(
          { sandbox: sandboxId, err: messageOf(error) },
          "a log cannot be followed; it is tried again",
        );
        // the count began anew: all that is there was not sent yet
        if (error instanceof SandboxdError && error.reason === "SEQUENCE_TRUNCATED") read = undefined;
        await sleep(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  function look(id: string, delayMs = 0): void {
    const record = repository.get(id);
    if (record === undefined) {
      places.remove(id);
      return;
    }
    if (signal.aborted || following.has(record.instance)) return;
    following.set(
      record.instance,
      follow(record, delayMs).finally(() => following.delete(record.instance)),
    );
  }

  const unsubscribe = repository.subscribe((id) => look(id));
  for (const [index, { id }] of repository.all().entries()) look(id, index * staggerMs);
  return {
    async close() {
      unsubscribe();
      closing.abort();
      await Promise.all(following.values());
    },
  };
}

/** A template's name cannot be empty, and a part of a tag must not be. */
const noTemplate = "none";

function tagOf(pattern: string, { id, tenant, spec }: SandboxRecord, host: string): string {
  const values = { tenant, sandbox: id, host, template: spec.template || noTemplate };
  return pattern.replace(/\{(\w+)\}/g, (_, name: string) => values[name as TagPlaceholder]);
}

function fieldsOf({ id, tenant, spec }: SandboxRecord, host: string) {
  return {
    ...{ sandbox_id: id, tenant, host, template: spec.template },
    ...(Object.keys(spec.labels).length === 0 ? {} : { labels: spec.labels }),
  };
}

/** A piece of a line that the engine cut has no end. */
function lineOf({ data, stream, sequence }: Extract<LogEntry, { readonly kind: "line" }>) {
  const isWhole = data.at(-1) === 0x0a;
  const text = Buffer.from(data.buffer, data.byteOffset, isWhole ? data.length - 1 : data.length);
  return { log: text.toString("utf8"), stream, sequence, partial: !isWhole };
}
