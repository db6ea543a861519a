// The part of an effective spec that says how a sandbox lives and ends: the request over its template over the defaults.

import type { FieldViolation } from "../errors.ts";
import type { HealthCheck, Lifetime, Probe, RestartPolicy, Spec, StopSignal } from "./record.ts";

/** A health check as asked for: what is absent gets its default. */
export type HealthCheckRequest = { readonly probe: Probe } & Partial<Omit<HealthCheck, "probe">>;

/** What a request or a template says of it; absent means: what lies below. */
export interface LifeRequest {
  readonly lifetime?: Partial<Lifetime>;
  readonly restart?: Partial<RestartPolicy>;
  readonly healthCheck?: HealthCheckRequest;
  readonly priority?: number;
  readonly stopSignal?: StopSignal;
}

type LifeSpec = Pick<Spec, "lifetime" | "restart" | "healthCheck" | "priority" | "stopSignal">;

const defaultDelayMs = 5_000;
const defaultMaxDelayMs = 300_000;
const defaultWindowMs = 600_000;

const defaultLifetime = { idleCpuMillis: 10, onExpiry: "DELETE", warningMs: 60_000 } as const;
const defaultHealthCheck = {
  intervalMs: 30_000,
  timeoutMs: 3_000,
  startPeriodMs: 5_000,
  retries: 3,
  onUnhealthy: "REPORT",
} as const;

export function effectiveLife(request: LifeRequest, template: LifeRequest): LifeSpec {
  const restart = { ...template.restart, ...request.restart };
  const { delayMs = defaultDelayMs, windowMs = defaultWindowMs } = restart;
  // a health check is one thing: half of one and half of another would check nothing that anybody meant
  const healthCheck = request.healthCheck ?? template.healthCheck;
  return {
    lifetime: { ...defaultLifetime, ...template.lifetime, ...request.lifetime },
    restart: {
      mode: restart.mode ?? "NEVER",
      delayMs,
      maxDelayMs: restart.maxDelayMs ?? Math.max(defaultMaxDelayMs, delayMs),
      maxAttempts: restart.maxAttempts ?? 3,
      windowMs,
      resetAfterMs: restart.resetAfterMs ?? windowMs,
    },
    ...(healthCheck === undefined ? {} : { healthCheck: { ...defaultHealthCheck, ...healthCheck } }),
    priority: request.priority ?? template.priority ?? 0,
    stopSignal: request.stopSignal ?? template.stopSignal ?? "SIGTERM",
  };
}

const mostProbeBytes = 16 * 1_024;

export function lifeViolations({ lifetime, restart, healthCheck }: LifeSpec): readonly FieldViolation[] {
  const { ttlMs, maxLifetimeMs, warningMs } = lifetime;
  const bytes =
    healthCheck?.probe.kind === "exec"
      ? healthCheck.probe.command.reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0)
      : 0;
  return [
    ...(ttlMs !== undefined && maxLifetimeMs !== undefined && ttlMs > maxLifetimeMs
      ? [violation("lifetime.ttl", `${ttlMs} ms is above max_lifetime, ${maxLifetimeMs} ms`)]
      : []),
    ...(restart.maxDelayMs < restart.delayMs
      ? [violation("restart.max_delay", `${restart.maxDelayMs} ms is below delay, ${restart.delayMs} ms`)]
      : []),
    ...(maxLifetimeMs !== undefined && warningMs >= maxLifetimeMs && warningMs !== defaultLifetime.warningMs
      ? [violation("lifetime.warning", `${warningMs} ms is not below max_lifetime, ${maxLifetimeMs} ms`)]
      : []),
    ...(bytes > mostProbeBytes
      ? [violation("health_check.exec.command", `has ${bytes} bytes; at most ${mostProbeBytes} are allowed`)]
      : []),
  ];
}

function violation(field: string, description: string): FieldViolation {
  return { field: `spec.${field}`, description };
}
