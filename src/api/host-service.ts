// HostService: the host once, or followed with its stats.

import type { ServiceImpl } from "@connectrpc/connect";
import type { HostService } from "../../gen/sandboxd/v1/host_service_pb.ts";
import type { HostStats, StatsBatch } from "../../gen/sandboxd/v1/stats_pb.ts";
import type { Host } from "../host/host.ts";
import { hostOf } from "./host-codec.ts";
import { millisecondsOf } from "./sandbox-codec.ts";

export interface HostServiceOptions {
  readonly host: Host;
  readonly hostStats: () => HostStats | undefined;
  /** The newest sample of everything. */
  readonly statsBatch: () => StatsBatch;
}

const defaultPeriodMs = 10_000;
/** Changes closer together than this are told as one. */
const settleMs = 100;

export function createHostService({
  host,
  hostStats,
  statsBatch,
}: HostServiceOptions): ServiceImpl<typeof HostService> {
  return {
    getHost() {
      const stats = hostStats();
      return { host: hostOf(host), ...(stats === undefined ? {} : { stats }) };
    },
    async *watchHost({ statsPeriod, sandboxStats }, { signal }) {
      const periodMs = statsPeriod === undefined ? defaultPeriodMs : millisecondsOf(statsPeriod);
      const news = createNews(host, periodMs, signal);
      try {
        yield { update: { case: "host" as const, value: hostOf(host) } };
        for (;;) {
          const { hostChanged, statsDue } = await news.next();
          if (hostChanged) yield { update: { case: "host" as const, value: hostOf(host) } };
          if (!statsDue) continue;
          const { $typeName, $unknown, ...batch } = statsBatch();
          yield {
            update: { case: "stats" as const, value: sandboxStats ? batch : { ...batch, sandboxes: [] } },
          };
        }
      } finally {
        news.close();
      }
    },
  };
}

interface News {
  /** What is new since the last call; waits for something. Rejects with the signal's reason. */
  next(): Promise<{ readonly hostChanged: boolean; readonly statsDue: boolean }>;
  close(): void;
}

/** What has happened is remembered as two facts, not as a queue, so a slow reader costs nothing. */
function createNews(host: Host, periodMs: number, signal: AbortSignal): News {
  let hostChanged = false;
  let statsDue = false;
  let wake: (() => void) | undefined;
  let settling: NodeJS.Timeout | undefined;
  const timer = setInterval(() => {
    statsDue = true;
    wake?.();
  }, periodMs);
  const unsubscribe = host.subscribe(() => {
    settling ??= setTimeout(() => {
      settling = undefined;
      hostChanged = true;
      wake?.();
    }, settleMs);
  });
  const onAbort = () => wake?.();
  signal.addEventListener("abort", onAbort);
  return {
    async next() {
      while (!hostChanged && !statsDue && !signal.aborted) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      signal.throwIfAborted();
      const news = { hostChanged, statsDue };
      hostChanged = false;
      statsDue = false;
      return news;
    },
    close() {
      clearInterval(timer);
      clearTimeout(settling);
      unsubscribe();
      signal.removeEventListener("abort", onAbort);
    },
  };
}
