// Between the contract's lifetime, restart policy, health check and what is seen of them, and the domain's.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import {
  ExpiryPolicy,
  type HealthCheck as HealthCheckMessage,
  HealthState,
  type Lifetime as LifetimeMessage,
  RestartMode,
  type RestartPolicy as RestartPolicyMessage,
  UnhealthyPolicy,
} from "../../gen/sandboxd/v1/lifecycle_pb.ts";
import {
  type SandboxSpec,
  type SandboxSpecSchema,
  type SandboxStatusSchema,
  StopSignal,
} from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { HealthCheckRequest, LifeRequest } from "../sandbox/life-spec.ts";
import { expiryOf } from "../sandbox/lifetime.ts";
import type { HealthCheck, Lifetime, Probe, RestartPolicy, SandboxRecord, Spec } from "../sandbox/record.ts";
import { recentOf } from "../sandbox/restart.ts";
import { durationOf, millisecondsOf, timestampOf } from "./time-codec.ts";

/** A message that has yet to be made; its parts are plain values. */
type PlainInit<T> = Exclude<T, { readonly $typeName: string }>;
type SpecInit = PlainInit<MessageInitShape<typeof SandboxSpecSchema>>;
type StatusInit = PlainInit<MessageInitShape<typeof SandboxStatusSchema>>;

/** What a caller's spec asks for. Only what is set: requests that mean the same must stay equal over releases. */
export function lifeRequestOf(spec: SandboxSpec | undefined): LifeRequest {
  if (spec === undefined) return {};
  const lifetime = lifetimeRequestOf(spec.lifetime);
  const restart = restartRequestOf(spec.restart);
  const healthCheck = healthCheckRequestOf(spec.healthCheck);
  return {
    ...(lifetime === undefined ? {} : { lifetime }),
    ...(restart === undefined ? {} : { restart }),
    ...(healthCheck === undefined ? {} : { healthCheck }),
    ...(spec.priority === undefined ? {} : { priority: spec.priority }),
    ...(spec.stopSignal === StopSignal.UNSPECIFIED
      ? {}
      : { stopSignal: `SIG${StopSignal[spec.stopSignal] as keyof typeof StopSignalName}` as const }),
  };
}

/** The names of `StopSignal` that are signals. */
enum StopSignalName {
  HUP,
  INT,
  QUIT,
  USR1,
  USR2,
  TERM,
}

function lifetimeRequestOf(message: LifetimeMessage | undefined): Partial<Lifetime> | undefined {
  if (message === undefined) return undefined;
  const { ttl, maxLifetime, idleTimeout, idleCpuMillis, onExpiry, warning } = message;
  return {
    ...milliseconds("ttlMs", ttl),
    ...milliseconds("maxLifetimeMs", maxLifetime),
    ...milliseconds("idleTimeoutMs", idleTimeout),
    ...(idleCpuMillis === undefined ? {} : { idleCpuMillis: Number(idleCpuMillis) }),
    ...(onExpiry === ExpiryPolicy.UNSPECIFIED
      ? {}
      : { onExpiry: ExpiryPolicy[onExpiry] as Lifetime["onExpiry"] }),
    ...milliseconds("warningMs", warning),
  };
}

function restartRequestOf(message: RestartPolicyMessage | undefined): Partial<RestartPolicy> | undefined {
  if (message === undefined) return undefined;
  const { mode, delay, maxDelay, maxAttempts, window, resetAfter } = message;
  return {
    ...(mode === RestartMode.UNSPECIFIED ? {} : { mode: RestartMode[mode] as RestartPolicy["mode"] }),
    ...milliseconds("delayMs", delay),
    ...milliseconds("maxDelayMs", maxDelay),
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
    ...milliseconds("windowMs", window),
    ...milliseconds("resetAfterMs", resetAfter),
  };
}

function healthCheckRequestOf(message: HealthCheckMessage | undefined): HealthCheckRequest | undefined {
  const probe = probeOf(message?.probe);
  if (message === undefined || probe === undefined) return undefined;
  const { interval, timeout, startPeriod, retries, onUnhealthy } = message;
  return {
    probe,
    ...milliseconds("intervalMs", interval),
    ...milliseconds("timeoutMs", timeout),
    ...milliseconds("startPeriodMs", startPeriod),
    ...(retries === undefined ? {} : { retries }),
    ...(onUnhealthy === UnhealthyPolicy.UNSPECIFIED
      ? {}
      : { onUnhealthy: UnhealthyPolicy[onUnhealthy] as HealthCheck["onUnhealthy"] }),
  };
}

function probeOf(probe: HealthCheckMessage["probe"] | undefined): Probe | undefined {
  switch (probe?.case) {
    case "exec":
      return { kind: "exec", command: probe.value.command };
    case "tcp":
      return { kind: "tcp", port: probe.value.port };
    case "http":
      return { kind: "http", port: probe.value.port, path: probe.value.path || "/" };
    default:
      return undefined;
  }
}

function milliseconds<K extends string>(name: K, duration: Duration | undefined): { [P in K]?: number } {
  return duration === undefined ? {} : ({ [name]: millisecondsOf(duration) } as { [P in K]: number });
}

/** The effective spec's part, as it is told. */
export function lifeOf({ lifetime, restart, healthCheck, priority, stopSignal }: Spec): SpecInit {
  return {
    lifetime: {
      ...optional("ttl", lifetime.ttlMs),
      ...optional("maxLifetime", lifetime.maxLifetimeMs),
      ...optional("idleTimeout", lifetime.idleTimeoutMs),
      idleCpuMillis: BigInt(lifetime.idleCpuMillis),
      onExpiry: ExpiryPolicy[lifetime.onExpiry],
      warning: durationOf(lifetime.warningMs),
    },
    restart: {
      mode: RestartMode[restart.mode],
      delay: durationOf(restart.delayMs),
      maxDelay: durationOf(restart.maxDelayMs),
      maxAttempts: restart.maxAttempts,
      window: durationOf(restart.windowMs),
      resetAfter: durationOf(restart.resetAfterMs),
    },
    ...(healthCheck === undefined
      ? {}
      : {
          healthCheck: {
            probe: probeMessageOf(healthCheck.probe),
            interval: durationOf(healthCheck.intervalMs),
            timeout: durationOf(healthCheck.timeoutMs),
            startPeriod: durationOf(healthCheck.startPeriodMs),
            retries: healthCheck.retries,
            onUnhealthy: UnhealthyPolicy[healthCheck.onUnhealthy],
          },
        }),
    priority,
    stopSignal: StopSignal[stopSignal.slice("SIG".length) as keyof typeof StopSignalName],
  };
}

function probeMessageOf(probe: Probe) {
  switch (probe.kind) {
    case "exec":
      return { case: "exec" as const, value: { command: [...probe.command] } };
    case "tcp":
      return { case: "tcp" as const, value: { port: probe.port } };
    case "http":
      return { case: "http" as const, value: { port: probe.port, path: probe.path } };
  }
}

function optional<K extends string>(name: K, ms: number | undefined): { [P in K]?: Duration } {
  return ms === undefined ? {} : ({ [name]: durationOf(ms) } as { [P in K]: Duration });
}

/** What is seen of it now. */
export function lifeStatusOf(record: SandboxRecord, clock: Clock): StatusInit {
  const { restarts, health, stuck, ranSinceMs } = record;
  const expiry = expiryOf(record);
  const nowMs = clock.nowMs();
  const ranMs = ranSinceMs === undefined ? 0 : nowMs - ranSinceMs;
  return {
    ...(Number.isFinite(expiry) ? { lease: { expireTime: timestampOf(clock.wallMs(expiry)) } } : {}),
    ...(restarts === undefined
      ? {}
      : {
          restarts: {
            count: BigInt(restarts.count),
            attempts: recentOf(record, ranMs, nowMs).length,
            ...(restarts.nextAtMs === undefined
              ? {}
              : { nextTime: timestampOf(clock.wallMs(restarts.nextAtMs)) }),
          },
        }),
    ...(health === undefined
      ? {}
      : {
          health: {
            state: HealthState[health.state],
            failures: health.failures,
            message: health.message,
            ...(health.timeMs === undefined ? {} : { time: timestampOf(health.timeMs) }),
          },
        }),
    ...(stuck === undefined
      ? {}
      : { stuck: { since: timestampOf(stuck.sinceMs), evidence: stuck.evidence } }),
  };
}
