// HostService: the host once, or followed with its stats.

import type { ServiceImpl } from "@connectrpc/connect";
import { CheckVerdict, DrainPolicy } from "../../gen/sandboxd/v1/host_pb.ts";
import type { HostService } from "../../gen/sandboxd/v1/host_service_pb.ts";
import type { HostStats, StatsBatch } from "../../gen/sandboxd/v1/stats_pb.ts";
import { SandboxdError } from "../errors.ts";
import type { Doctor } from "../host/doctor/doctor.ts";
import { worstOf } from "../host/doctor/finding.ts";
import type { Host } from "../host/host.ts";
import { actorOfCaller, callerKey } from "./caller.ts";
import { checkOf, type HostView, hostOf } from "./host-codec.ts";
import { millisecondsOf } from "./time-codec.ts";

export interface HostServiceOptions {
  readonly view: HostView;
  readonly hostStats: () => HostStats | undefined;
  /** The newest sample of everything. */
  readonly statsBatch: () => StatsBatch;
  readonly doctor: Doctor;
}

const defaultPeriodMs = 10_000;
const defaultDeadlineMs = 600_000;
/** Ids in one message of a drain. */
const mostIds = 100;
/** Changes closer together than this are told as one. */
const settleMs = 100;

export function createHostService({
  view,
  hostStats,
  statsBatch,
  doctor,
}: HostServiceOptions): ServiceImpl<typeof HostService> {
  const { host, scheduling } = view;
  return {
    getHost() {
      const stats = hostStats();
      return { host: hostOf(view), ...(stats === undefined ? {} : { stats }) };
    },
    async checkHost(_request, { signal }) {
      const findings = await doctor.examine({ signal });
      return { verdict: CheckVerdict[worstOf(findings)], checks: findings.map(checkOf) };
    },
    async setSchedulable({ schedulable, reason }, { values }) {
      await scheduling.setSchedulable(schedulable, reason, actorOfCaller(values.get(callerKey)));
      return { host: hostOf(view) };
    },
    async *drainHost({ policy, deadline, reason }, { values, signal }) {
      await scheduling.drain({
        policy: policy === DrainPolicy.WAIT ? "WAIT" : "STOP",
        withinMs: deadline === undefined ? defaultDeadlineMs : millisecondsOf(deadline),
        reason,
        actor: actorOfCaller(values.get(callerKey)),
      });
      const news = createNews(host, signal);
      let told: string | undefined;
      try {
        for (;;) {
          const { drain } = scheduling.now();
          const ids = scheduling.remaining().map(({ id }) => id);
          const done = drain === undefined;
          // also where it was cordoned anew since: that empties nothing
          if (done && ids.length > 0) {
            throw new SandboxdError("DRAIN_CANCELED", "the host was opened again while it was being drained");
          }
          const seen = ids.join();
          if (done || seen !== told) {
            yield { remaining: ids.length, sandboxIds: ids.slice(0, mostIds), done };
          }
          if (done) return;
          told = seen;
          await news.next();
        }
      } finally {
        news.close();
      }
    },
    async *watchHost({ statsPeriod, sandboxStats }, { signal }) {
      const periodMs = statsPeriod === undefined ? defaultPeriodMs : millisecondsOf(statsPeriod);
      const news = createNews(host, signal, periodMs);
      try {
        yield { update: { case: "host" as const, value: hostOf(view) } };
        for (;;) {
          const { hostChanged, statsDue } = await news.next();
          if (hostChanged) yield { update: { case: "host" as const, value: hostOf(view) } };
          if (!statsDue) continue;
          const { $typeName, $unknown, ...batch } = statsBatch();
          yield {
            update: {
              case: "stats" as const,
              value: sandboxStats ? batch : { ...batch, sandboxes: [], tenants: [] },
            },
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

/** What has happened is remembered as two facts, not as a queue, so a slow reader costs nothing. Without a period no stats are due. */
function createNews(host: Host, signal: AbortSignal, periodMs?: number): News {
  let hostChanged = false;
  let statsDue = false;
  let wake: (() => void) | undefined;
  let settling: NodeJS.Timeout | undefined;
  const beat = () => {
    statsDue = true;
    wake?.();
  };
  const timer = periodMs === undefined ? undefined : setInterval(beat, periodMs);
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
