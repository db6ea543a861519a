// What the parts of the daemon are told of the configuration, in their own words.

import { readFileSync } from "node:fs";
import type { ListenerConfig } from "./api/listeners.ts";
import type { Config } from "./config/config.ts";
import { resolversOf, tenantNetworkOf } from "./config/network-values.ts";
import { hostUpstreams } from "./network/resolver/host-upstreams.ts";
import type { RangeAmounts } from "./tenant/record.ts";
import type { TenantRules } from "./tenant/tenants.ts";

export function timeoutsOf({ engine: { timeouts } }: Config) {
  return {
    list: timeouts.listMs,
    inspect: timeouts.inspectMs,
    create: timeouts.createMs,
    start: timeouts.startMs,
    stop: timeouts.stopMs,
    remove: timeouts.removeMs,
    update: timeouts.updateMs,
    pull: timeouts.pullMs,
    pause: timeouts.pauseMs,
    resume: timeouts.pauseMs,
    exec: timeouts.execMs,
  };
}

const mostSamples = 3_600;

export function samplingOf({ sampling: { periodMs, historyMs } }: Config) {
  return {
    intervalMs: periodMs,
    historySize: Math.max(2, Math.min(mostSamples, Math.ceil(historyMs / periodMs))),
  };
}

/** Between two looks at the engine are 5 s at most. */
const pauseMs = 10_000;

/** The most that can lie between two signs of progress: a pause, and the slowest questions to the engine in a row. */
export function longestStepMs({ engine: { timeouts } }: Config): number {
  return pauseMs + 2 * timeouts.listMs + timeouts.inspectMs + timeouts.removeMs;
}

export function listenersOf({ listen }: Config, dev: boolean): readonly ListenerConfig[] {
  const { tls, devAddress } = listen;
  const group = listen.socketGroup === undefined ? {} : { group: listen.socketGroup };
  return [
    { kind: "unix", path: listen.socket, mode: listen.socketMode, ...group },
    ...(devAddress?.kind === "tcp"
      ? [{ kind: "plain", host: devAddress.host, port: devAddress.port, dev } as const]
      : []),
    ...(tls.address?.kind === "tcp" &&
    tls.certificate !== undefined &&
    tls.key !== undefined &&
    tls.clientCa !== undefined
      ? [
          {
            kind: "tls",
            host: tls.address.host,
            port: tls.address.port,
            tls: { certificate: tls.certificate, key: tls.key, clientCa: tls.clientCa },
          } as const,
        ]
      : []),
  ];
}

/** Read anew at each session, so that renewed files are taken up. */
export function schedulerCredentials({ scheduler: { tls } }: Config) {
  const { ca, certificate, key } = tls;
  if (ca === undefined || certificate === undefined || key === undefined) return undefined;
  return () => ({ ca: readFileSync(ca), certificate: readFileSync(certificate), key: readFileSync(key) });
}

/** By configuration: they are asked for several times with each call. */
const tenantRules = new WeakMap<Config, TenantRules>();

/** What the configuration says of tenants that were never put. */
export function tenantRulesOf(config: Config): TenantRules {
  const known = tenantRules.get(config);
  if (known !== undefined) return known;
  const { uidRange, unknown, default: policy } = config.tenants;
  const { min, max, default: defaults, maxLimitRequestRatio } = policy.limitRange;
  const rules = {
    acceptUnknown: unknown === "accept",
    uidRange,
    defaultPolicy: {
      quota: defined(policy.quota),
      limitRange: {
        min: defined<RangeAmounts>(min),
        max: defined<RangeAmounts>(max),
        defaults: defined<RangeAmounts>(defaults),
        maxRatio: defined(maxLimitRequestRatio),
      },
      network: tenantNetworkOf(policy.network),
    },
  };
  tenantRules.set(config, rules);
  return rules;
}

export { proxiesOf } from "./config/network-values.ts";

/** Who is asked for names: those of the configuration, else the host's own, as they are now. */
export function upstreamsOf(config: Config): readonly { readonly address: string; readonly port: number }[] {
  const configured = resolversOf(config);
  return configured.length > 0 ? configured : hostUpstreams();
}

/** Only the keys that have a value. */
function defined<T extends object>(
  values: { readonly [K in keyof T]: T[K] | undefined },
): {
  readonly [K in keyof T]?: NonNullable<T[K]>;
} {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    readonly [K in keyof T]?: NonNullable<T[K]>;
  };
}
