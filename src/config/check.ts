// What must hold between keys: pure functions of a configuration whose keys are each valid by themselves.

import { type Config, nameOf } from "./config.ts";
import { logShippingHolds } from "./log-shipping.ts";
import { mountsHold } from "./mount-check.ts";
import { networksHold } from "./network-check.ts";
import { previewHolds } from "./preview.ts";
import { type ResourceKey, resourceBounds } from "./resource.ts";
import { isLoopback } from "./rule.ts";
import { formatDuration } from "./unit.ts";
import { workspacesHold } from "./workspace-check.ts";

/** A broken rule. It is told at the first of its keys that someone gave; with one of them invalid, it isn't told. */
export interface Violation {
  readonly keys: readonly [string, ...string[]];
  readonly problem: string;
  readonly hint?: string;
}

type Template = Config["templates"][string];

/** Every rule between keys that is broken. `dev` is the flag --dev. */
export function violationsOf(config: Config, { dev }: { readonly dev: boolean }): readonly Violation[] {
  return [
    ...limitsInOrder(config),
    ...tenantRangeHolds(config),
    ...Object.entries(config.templates).flatMap(([name, template]) => templateHolds(name, template, config)),
    ...listenHolds(config, dev),
    ...schedulerHolds(config, dev),
    ...imagesHold(config),
    ...samplingHolds(config),
    ...pressureHolds(config),
    ...mountsHold(config),
    ...workspacesHold(config),
    ...networksHold(config),
    ...previewHolds(config),
    ...logShippingHolds(config),
  ];
}

const resourceKeys = Object.keys(resourceBounds) as readonly ResourceKey[];

/** The key's value in a section of resources. */
function amountOf<T>(amounts: { readonly [K in keyof Config["defaults"]]: T }, key: ResourceKey): T {
  // the type of the configuration derives its names from the same keys
  return amounts[nameOf(key, "") as keyof Config["defaults"]];
}

function limitsInOrder({ defaults, limits }: Config): readonly Violation[] {
  return resourceKeys.flatMap((key) => {
    const [least, most] = [amountOf(limits.min, key), amountOf(limits.max, key)];
    const keys = [`limits.min.${key}`, `limits.max.${key}`] as const;
    if (least > most)
      return [{ keys, problem: `limits.min.${key}, ${least}, is more than limits.max.${key}, ${most}` }];
    return outside(`defaults.${key}`, amountOf(defaults, key), key, { least, most });
  });
}

const rangeKeys = [...resourceKeys, "cpu_request_millis", "memory_request_bytes"] as const;

type LimitRange = Config["tenants"]["default"]["limitRange"];

/** Of what a tenant may have that was never put: else its every request would be refused for what it did not say. */
function tenantRangeHolds({ tenants }: Config): readonly Violation[] {
  const range = tenants.default.limitRange;
  const at = (part: string, key: string) => `tenants.default.limit_range.${part}.${key}`;
  const order = (lower: "min" | "default", upper: "default" | "max") =>
    rangeKeys.flatMap((key) => {
      // the type of the configuration derives its names from the same keys
      const name = nameOf(key, "") as keyof LimitRange["min"];
      const [less, more] = [range[lower][name], range[upper][name]];
      if (less === undefined || more === undefined || less <= more) return [];
      const keys = [at(lower, key), at(upper, key)] as const;
      return [{ keys, problem: `${keys[0]}, ${less}, is more than ${keys[1]}, ${more}` }];
    });
  return [...order("min", "max"), ...order("min", "default"), ...order("default", "max")];
}

function templateHolds(name: string, template: Template, config: Config): readonly Violation[] {
  const { defaults, limits } = config;
  const { resources } = template;
  const at = (key: string) => `templates.${name}.resources.${key}`;
  const ranges = resourceKeys.flatMap((key) => {
    const value = amountOf(resources, key);
    if (value === undefined) return [];
    return outside(at(key), value, key, {
      least: amountOf(limits.min, key),
      most: amountOf(limits.max, key),
    });
  });
  const notAbove = (key: string, value: number | undefined, of: "cpu_millis" | "memory_bytes") => {
    const own = amountOf(resources, of);
    const limit = own ?? amountOf(defaults, of);
    if (value === undefined || value <= limit) return [];
    const limitKey = own === undefined ? `defaults.${of}` : at(of);
    const problem = `${value} is more than the template's ${of}, ${limit} (${limitKey})`;
    return [{ keys: [at(key), limitKey], problem, hint: `lower ${key} or raise ${at(of)}` } as const];
  };
  return [
    ...ranges,
    ...notAbove("cpu_request_millis", resources.cpuRequestMillis, "cpu_millis"),
    ...notAbove("memory_request_bytes", resources.memoryRequestBytes, "memory_bytes"),
    ...notAbove("tmpfs_bytes", resources.tmpfsBytes, "memory_bytes"),
    ...notAbove("shm_bytes", resources.shmBytes, "memory_bytes"),
    ...processFits(name, template),
    ...lifeHolds(name, template),
  ];
}

/** The contract's default of RestartPolicy.delay. */
const restartDelayMs = 5_000;

/** Else every request of the template would be refused for what its caller did not say. */
function lifeHolds(name: string, { lifetime, restart, healthCheck }: Template): readonly Violation[] {
  const at = (key: string) => `templates.${name}.${key}`;
  const probes = [
    ...(healthCheck.exec === undefined ? [] : [at("health_check.exec")]),
    ...(healthCheck.tcpPort === undefined ? [] : [at("health_check.tcp_port")]),
    ...(healthCheck.httpPort === undefined ? [] : [at("health_check.http_port")]),
  ];
  const [firstProbe, ...otherProbes] = probes;
  return [
    ...durationsInOrder(
      { key: at("lifetime.ttl"), ms: lifetime.ttlMs },
      { key: at("lifetime.max_lifetime"), ms: lifetime.maxLifetimeMs },
    ),
    ...durationsInOrder(
      { key: at("restart.delay"), ms: restart.delayMs ?? restartDelayMs },
      { key: at("restart.max_delay"), ms: restart.maxDelayMs },
    ),
    ...(healthCheck.exec?.length === 0
      ? [{ keys: [at("health_check.exec")] as const, problem: "names no command", hint: "leave it out" }]
      : []),
    ...(firstProbe === undefined || otherProbes.length === 0
      ? []
      : [
          {
            keys: [firstProbe, ...otherProbes] as const,
            problem: `${probes.join(", ")} are ${probes.length} probes; a health check has one`,
          },
        ]),
  ];
}

interface Duration {
  readonly key: string;
  readonly ms: number | undefined;
}

function durationsInOrder(shorter: Duration, longer: Duration): readonly Violation[] {
  if (shorter.ms === undefined || longer.ms === undefined || shorter.ms <= longer.ms) return [];
  const problem = `${shorter.key}, ${formatDuration(shorter.ms)}, is more than ${longer.key}, ${formatDuration(longer.ms)}`;
  return [{ keys: [shorter.key, longer.key], problem }];
}

/** The contract's bound of what a process is started with; the kernel's own is 128 KiB for each string. */
const maxProcessBytes = 128 * 1024;

function processFits(name: string, { command, args, env }: Template): readonly Violation[] {
  const strings = [...(command ?? []), ...(args ?? []), ...Object.entries(env).flat()];
  const bytes = strings.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  if (bytes <= maxProcessBytes) return [];
  const keys = [`templates.${name}.command`, `templates.${name}.args`, `templates.${name}.env`] as const;
  return [
    {
      keys,
      problem: `command, args and env of templates.${name} have ${bytes} bytes; at most ${maxProcessBytes} are allowed`,
    },
  ];
}

function outside(
  at: string,
  value: number,
  key: ResourceKey,
  { least, most }: { readonly least: number; readonly most: number },
): readonly Violation[] {
  if (value < least) {
    const keys = [at, `limits.min.${key}`] as const;
    const hint = `raise ${at} or lower limits.min.${key}`;
    return [{ keys, problem: `${at}, ${value}, is less than limits.min.${key}, ${least}`, hint }];
  }
  if (value <= most) return [];
  const keys = [at, `limits.max.${key}`] as const;
  const hint = `lower ${at} or raise limits.max.${key}`;
  return [{ keys, problem: `${at}, ${value}, is more than limits.max.${key}, ${most}`, hint }];
}

function listenHolds({ listen, engine, metrics }: Config, dev: boolean): readonly Violation[] {
  const violations: Violation[] = [...allOrNone("listen.tls", listen.tls, tlsKeys.listen)];
  if (listen.devAddress !== undefined && !dev) {
    const hint = "start with --dev, or use [listen.tls]";
    violations.push({
      keys: ["listen.dev_address"],
      problem: "is plain TCP, which is refused without --dev",
      hint,
    });
  }
  if (samePath(listen.socket, engine.socket)) {
    violations.push({
      keys: ["listen.socket", "engine.socket"],
      problem: "listen.socket is the engine's own socket",
    });
  }
  const metricsPath = metrics.address?.kind === "unix" ? metrics.address.path : undefined;
  if (metricsPath === undefined) return violations;
  for (const [key, path] of [
    ["listen.socket", listen.socket],
    ["engine.socket", engine.socket],
  ] as const) {
    if (samePath(metricsPath, path))
      violations.push({ keys: ["metrics.address", key], problem: `metrics.address is also ${key}` });
  }
  return violations;
}

function schedulerHolds({ scheduler }: Config, dev: boolean): readonly Violation[] {
  const { endpoints, tls } = scheduler;
  const key = "scheduler.endpoints";
  const violations: Violation[] = [...allOrNone("scheduler.tls", tls, tlsKeys.scheduler)];
  const plain = endpoints.filter((url) => url.startsWith("http:") && !isLoopback(new URL(url).hostname));
  if (plain.length > 0 && !dev) {
    const hint = "use https:// and [scheduler.tls], or start with --dev";
    violations.push({ keys: [key], problem: `${plain.join(", ")} is plain text to another machine`, hint });
  }
  if (
    endpoints.some((url) => url.startsWith("https:")) &&
    Object.values(tls).every((path) => path === undefined)
  ) {
    const keys = [key, ...tlsKeys.scheduler.map((name) => `scheduler.tls.${name}`)] as [string, ...string[]];
    violations.push({
      keys,
      problem: "has https:// but there is no [scheduler.tls]",
      hint: "give ca, certificate and key",
    });
  }
  const twice = endpoints.find((url, index) => endpoints.indexOf(url) !== index);
  if (twice !== undefined) violations.push({ keys: [key], problem: `names ${twice} twice` });
  return violations;
}

const tlsKeys = {
  listen: ["address", "certificate", "key", "client_ca"],
  scheduler: ["ca", "certificate", "key"],
} as const;

function allOrNone(
  sectionKey: string,
  values: Readonly<Record<string, unknown>>,
  names: readonly string[],
): readonly Violation[] {
  const missing = names.filter((name) => values[nameOf(name, "")] === undefined);
  if (missing.length === 0 || missing.length === names.length) return [];
  const given = names.filter((name) => !missing.includes(name));
  const keys = [...given, ...missing].map((name) => `${sectionKey}.${name}`) as [string, ...string[]];
  const problem = `needs ${missing.map((name) => `${sectionKey}.${name}`).join(", ")} beside it`;
  return [{ keys, problem, hint: `give all of ${names.join(", ")}, or none` }];
}

function imagesHold({ images }: Config): readonly Violation[] {
  if (!images.allow.includes("*") || images.allow.length === 1) return [];
  return [
    {
      keys: ["images.allow"],
      problem: 'has "*" beside others',
      hint: '"*" allows every image: let it stand alone',
    },
  ];
}

/** More would be memory without use: an hour at one a second. */
const maxSamples = 3600;

function samplingHolds({ sampling: { periodMs, historyMs } }: Config): readonly Violation[] {
  const keys = ["sampling.history", "sampling.period"] as const;
  const shown = `sampling.history ${formatDuration(historyMs)} at sampling.period ${formatDuration(periodMs)}`;
  if (historyMs < periodMs) return [{ keys, problem: `${shown} holds no sample` }];
  return historyMs / periodMs > maxSamples
    ? [
        {
          keys,
          problem: `${shown} is more than ${maxSamples} samples`,
          hint: "shorten the history or lengthen the period",
        },
      ]
    : [];
}

/** A condition that nothing can end would keep a host closed for ever. */
function pressureHolds({ pressure, housekeeping }: Config): readonly Violation[] {
  const { recovery } = pressure;
  const shares = {
    disk_available_percent: pressure.diskAvailablePercent,
    inodes_available_percent: pressure.inodesAvailablePercent,
    pids_available_percent: pressure.pidsAvailablePercent,
  };
  const endless = Object.entries(shares).filter(([, percent]) => percent * recovery > 100);
  const { imagesHighPercent: high, imagesLowPercent: low } = housekeeping;
  return [
    ...endless.map(([key, percent]) => ({
      keys: [`pressure.${key}`, "pressure.recovery"] as const,
      problem: `pressure.${key}, ${percent}, times pressure.recovery, ${recovery}, is more than 100: the condition would never end`,
    })),
    ...(low > high
      ? [
          {
            keys: ["housekeeping.images_low_percent", "housekeeping.images_high_percent"] as const,
            problem: `housekeeping.images_low_percent, ${low}, is more than housekeeping.images_high_percent, ${high}`,
          },
        ]
      : []),
  ];
}

/** /var/run is a link to /run on every current distribution. */
function samePath(a: string, b: string): boolean {
  const plain = (path: string) => path.replace(/\/+(\.\/+)*/g, "/").replace(/^\/var\/run\//, "/run/");
  return plain(a) === plain(b);
}
