// SandboxService: decode, ask the domain, encode.

import { createHash } from "node:crypto";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import {
  LogStream,
  type SandboxFilter,
  type SandboxService,
} from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { LogEntry } from "../engine/runtime.ts";
import { invalidField, SandboxdError } from "../errors.ts";
import type { Sampler } from "../monitor/sampler-loop.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { Explanation } from "../sandbox/explain.ts";
import type { LogReader } from "../sandbox/log-reader.ts";
import type { Manager } from "../sandbox/manager.ts";
import type { Actor, SandboxRecord } from "../sandbox/record.ts";
import { isOfSandbox, type Repository } from "../sandbox/repository.ts";
import type { EventLog, StoredEvent } from "../store/event-log.ts";
import type { Metering } from "../tenant/metering.ts";
import { actorOfCaller, callerKey } from "./caller.ts";
import { documentOf } from "./event-codec.ts";
import { checkResumable, followEvents } from "./event-feed.ts";
import type { NetworkView } from "./network-codec.ts";
import { matcherOf, sandboxOf, specRequestOf } from "./sandbox-codec.ts";
import { statsOf, summaryOf, usageOf } from "./stats-codec.ts";
import { millisecondsOf } from "./time-codec.ts";
import { createTurns } from "./turns.ts";
import { changeOf } from "./update-codec.ts";

export interface SandboxServiceOptions {
  readonly manager: Manager;
  readonly logs: LogReader;
  readonly repository: Repository;
  readonly events: EventLog;
  readonly sampler: Sampler;
  readonly metering: Pick<Metering, "ofSandbox">;
  readonly clock: Clock;
  readonly explain: (record: SandboxRecord) => Explanation;
  /** The record with what is known of the sandbox since its last event. */
  readonly current: (record: SandboxRecord) => SandboxRecord;
  /** What is seen of its network now; undefined without one. */
  readonly network: (record: SandboxRecord) => NetworkView | undefined;
  /** Someone uses the sandbox, until what is returned is called. */
  readonly attach: (id: string) => () => void;
}

const defaultPage = 100;
const defaultWindowMs = 60_000;

export function createSandboxService({
  manager,
  logs,
  repository,
  events,
  sampler,
  metering,
  clock,
  explain,
  current,
  network,
  attach,
}: SandboxServiceOptions): ServiceImpl<typeof SandboxService> {
  const seen = (record: SandboxRecord) => sandboxOf(record, clock, network(record));
  const told = (record: SandboxRecord) => seen(current(record));
  const turn = createTurns();
  return {
    async createSandbox({ sandboxId, tenant, spec, wait }, context) {
      await turn();
      const request = { id: sandboxId, tenant, spec: specRequestOf(spec), wait: wait ?? true };
      return { sandbox: told(await manager.create({ ...request, ...asking(context) })) };
    },
    getSandbox({ sandboxId }) {
      const record = manager.get(sandboxId);
      const usage = metering.ofSandbox(record);
      return { sandbox: told(record), ...(usage === undefined ? {} : { usage: usageOf(usage) }) };
    },
    listSandboxes({ filter, pageSize, pageToken }) {
      const matches = matcherOf(filter);
      const after = pageToken === "" ? "" : idOfToken(pageToken, filter);
      const size = pageSize || defaultPage;
      const found = repository.all().filter((record) => record.id > after && matches(record));
      const page = firstPage(found, size);
      const last = page.at(-1);
      return {
        sandboxes: page.map(told),
        nextPageToken: found.length > page.length && last !== undefined ? tokenOf(last.id, filter) : "",
      };
    },
    async *watchSandboxes({ filter, afterSequence }, { signal }) {
      const matches = matcherOf(filter);
      const known = new Set<string>();
      const after = afterSequence === undefined ? events.newest() : Number(afterSequence);
      checkResumable(events, after);
      if (afterSequence === undefined) {
        // the list and the number are of one moment; what changes while it is told comes after the bookmark
        for (const record of repository.all().filter(matches)) {
          known.add(record.instance);
          yield { update: { case: "existing" as const, value: told(record) } };
        }
        yield bookmark(after);
      }
      const select = (stored: StoredEvent) => {
        const document = documentOf(stored);
        if (!isOfSandbox(document)) return undefined;
        const { sandbox } = document;
        // after a resume it is not known what matched before, so leaving is told for all of the tenant
        const mayLeave = afterSequence !== undefined && isOfTenant(sandbox.tenant, filter);
        const isLeaving = known.delete(sandbox.instance) || mayLeave;
        if (matches(sandbox)) known.add(sandbox.instance);
        return known.has(sandbox.instance) || isLeaving ? seen(sandbox) : undefined;
      };
      for await (const { sequence, told: changed } of followEvents(events, after, signal, select)) {
        yield changed === undefined
          ? bookmark(sequence)
          : { update: { case: "changed" as const, value: changed }, sequence: BigInt(sequence) };
      }
    },
    async updateSandbox(request, context) {
      return { sandbox: told(await manager.update({ ...changeOf(request), ...asking(context) })) };
    },
    async startSandbox({ sandboxId }, context) {
      return { sandbox: told(await manager.start(sandboxId, asking(context))) };
    },
    async stopSandbox({ sandboxId, grace }, context) {
      const graceMs = grace === undefined ? {} : { graceMs: millisecondsOf(grace) };
      return { sandbox: told(await manager.stop(sandboxId, { ...asking(context), ...graceMs })) };
    },
    async renewSandbox({ sandboxId, generation, ttl }, context) {
      const ttlMs = ttl === undefined ? {} : { ttlMs: millisecondsOf(ttl) };
      const renewal = { ...asking(context), generation: Number(generation), ...ttlMs };
      return { sandbox: told(await manager.renew(sandboxId, renewal)) };
    },
    async pauseSandbox({ sandboxId }, context) {
      return { sandbox: told(await manager.pause(sandboxId, asking(context))) };
    },
    async resumeSandbox({ sandboxId }, context) {
      return { sandbox: told(await manager.resume(sandboxId, asking(context))) };
    },
    explainSandbox: ({ sandboxId }) => {
      const { summary, findings } = explain(manager.get(sandboxId));
      return { summary, findings: findings.map(({ kind, message, hint = "" }) => ({ kind, message, hint })) };
    },
    async deleteSandbox({ sandboxId }, context) {
      await manager.delete(sandboxId, asking(context));
      return {};
    },
    async *streamLogs({ sandboxId, follow, tailLines, since, stream, afterSequence }, { signal }) {
      const batches = logs.read(manager.get(sandboxId), {
        follow,
        signal,
        // before every line is where a reader without a number begins
        ...(afterSequence ? { afterSequence } : {}),
        ...(tailLines === undefined ? {} : { tailLines }),
        ...(since === undefined
          ? {}
          : { sinceNanoseconds: since.seconds * 1_000_000_000n + BigInt(since.nanos) }),
        ...(stream === LogStream.UNSPECIFIED
          ? {}
          : { stream: stream === LogStream.STDERR ? "stderr" : "stdout" }),
      });
      const detach = follow ? attach(sandboxId) : undefined;
      try {
        for await (const { entries } of batches) for (const entry of entries) yield logEntryOf(entry);
      } finally {
        detach?.();
      }
    },
    getSandboxStats({ sandboxId, window }) {
      const record = manager.get(sandboxId);
      sampler.sampleNow(sandboxId);
      const history = sampler.history(sandboxId);
      const latest = sampler.latest(sandboxId);
      if (history === undefined || latest === undefined) {
        throw new SandboxdError(
          "INVALID_STATE",
          `sandbox "${sandboxId}" is ${record.state} and has no figures`,
          {
            hint: "figures are taken while it runs",
            metadata: { state: record.state },
          },
        );
      }
      const windowMs = window === undefined ? defaultWindowMs : millisecondsOf(window);
      const summary = history.summary(latest.monotonicMs - windowMs);
      return {
        stats: statsOf(sandboxId, latest, summary?.cpu.latestMillis ?? 0, metering.ofSandbox(record)),
        ...(summary === undefined ? {} : { summary: summaryOf(summary) }),
      };
    },
  };
}

/** Most clients take messages of 4 MiB; a page of sandboxes with large environments ends earlier. */
const pageBytes = 2 * 1024 * 1024;

function firstPage(records: readonly SandboxRecord[], size: number): readonly SandboxRecord[] {
  let bytes = 0;
  const end = records.findIndex((record, index) => {
    bytes += JSON.stringify(record.spec).length;
    return index === size || (index > 0 && bytes > pageBytes);
  });
  return end < 0 ? records : records.slice(0, end);
}

function asking(context: HandlerContext): { readonly actor: Actor; readonly signal: AbortSignal } {
  return { actor: actorOfCaller(context.values.get(callerKey)), signal: context.signal };
}

function logEntryOf(entry: LogEntry) {
  if (entry.kind === "gap") return { sequence: entry.sequence - 1n, gap: { nextSequence: entry.sequence } };
  const { timeNanoseconds, stream, data, sequence } = entry;
  return {
    time: {
      seconds: timeNanoseconds / 1_000_000_000n,
      nanos: Number(timeNanoseconds % 1_000_000_000n),
    },
    stream: stream === "stderr" ? LogStream.STDERR : LogStream.STDOUT,
    data: Uint8Array.from(data),
    sequence,
  };
}

function bookmark(sequence: number) {
  return {
    update: { case: "bookmark" as const, value: { sequence: BigInt(sequence) } },
    sequence: BigInt(sequence),
  };
}

function isOfTenant(tenant: string, filter: SandboxFilter | undefined): boolean {
  return (filter?.tenant ?? "") === "" || filter?.tenant === tenant;
}

/** A page token holds the last id told, and a mark of the filter that it belongs to. */
function tokenOf(id: string, filter: SandboxFilter | undefined): string {
  return Buffer.from(`${markOf(filter)}${id}`).toString("base64url");
}

const markLength = 12;

function markOf(filter: SandboxFilter | undefined): string {
  const labels = Object.entries(filter?.labels ?? {}).sort();
  const canonical = JSON.stringify([filter?.tenant ?? "", labels, [...(filter?.states ?? [])].sort()]);
  return createHash("sha256").update(canonical).digest("hex").slice(0, markLength);
}

function idOfToken(token: string, filter: SandboxFilter | undefined): string {
  const text = Buffer.from(token, "base64url").toString("utf8");
  if (text.startsWith(markOf(filter)) && /^[a-z0-9-]+$/.test(text.slice(markLength)))
    return text.slice(markLength);
  throw invalidField(
    "page_token",
    "is not a token of this host for this filter",
    "start again without a page token",
  );
}
