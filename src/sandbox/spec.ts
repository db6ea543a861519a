// From what a request says to the effective spec: the request over its template over the host's defaults, then every
// rule that the contract's own bounds cannot say.

import { createHash } from "node:crypto";
import type { Config } from "../config/config.ts";
import { type FieldViolation, throwIfAny } from "../errors.ts";
import type { TenantNetwork } from "../network/policy.ts";
import { checkRange, leastRequest, rangeNames, within } from "../tenant/limit-range.ts";
import type { LimitRange } from "../tenant/record.ts";
import { effectiveLife, type LifeRequest, lifeViolations } from "./life-spec.ts";
import {
  effectiveMounts,
  type MountRequest,
  type MountRules,
  mountsOfTemplate,
  mountViolations,
  workspacePath,
} from "./mount-spec.ts";
import {
  checkNetworkSpec,
  effectiveNetworkSpec,
  type NetworkRequest,
  type NetworkRules,
  networkOfTemplate,
  networkSpecViolations,
} from "./network-spec.ts";
import type { Resources, SandboxRecord, Spec } from "./record.ts";
import { defined, findTemplate, lifeOfTemplate } from "./template.ts";

/** What a caller asks; empty and absent mean "the template's". */
export interface SpecRequest extends LifeRequest, MountRequest, NetworkRequest {
  readonly template: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly resources: Partial<Resources>;
  readonly stopGraceMs?: number;
}

type Rules = Pick<Config, "templates" | "defaults" | "capacity"> & MountRules & NetworkRules;

const environmentBytes = 128 * 1024;
const reservedLabelPrefix = "sandboxd.";
const defaultStopGraceMs = 10_000;
const writableDir = "/tmp";

/** The tenant that asks, and what it lets a sandbox have. */
export interface Asker {
  readonly tenant: string;
  readonly limitRange: LimitRange;
  readonly network: TenantNetwork;
}

/**
 * @throws SandboxdError TEMPLATE_NOT_FOUND; INVALID_FIELD naming every field that breaks a rule; LIMIT_RANGE_VIOLATED;
 * NETWORK_NOT_ALLOWED or NETWORK_UNAVAILABLE.
 */
export function effectiveSpec(request: SpecRequest, rules: Rules, asker: Asker): Spec {
  const template = findTemplate(request.template, rules.templates);
  const hasCommand = request.command.length > 0;
  const mounts = effectiveMounts(request, template === undefined ? {} : mountsOfTemplate(template), rules);
  const { networkMode, ...network } = effectiveNetworkSpec(
    request,
    template === undefined ? {} : networkOfTemplate(template),
    {
      hasProxy: asker.network.proxy !== undefined,
    },
  );
  const usualDir = mounts.workspace === undefined ? writableDir : workspacePath;
  const spec: Spec = {
    template: request.template,
    image: request.image || (template?.image ?? ""),
    command: hasCommand ? request.command : (template?.command ?? []),
    // arguments belong to a command: another command never gets the template's
    args: request.args.length > 0 || hasCommand ? request.args : (template?.args ?? []),
    env: { ...template?.env, ...request.env },
    workingDir: request.workingDir || (template?.workingDir ?? usualDir),
    labels: { ...template?.labels, ...request.labels },
    resources: effectiveResources(request.resources, template?.resources ?? {}, rules, asker.limitRange),
    networkMode,
    stopGraceMs: request.stopGraceMs ?? template?.stopGraceMs ?? defaultStopGraceMs,
    ...effectiveLife(request, template === undefined ? {} : lifeOfTemplate(template)),
    ...mounts,
    ...network,
  };
  throwIfAny([
    ...specViolations(spec),
    ...lifeViolations(spec),
    ...resourceViolations(spec.resources, rules.limits),
    ...mountViolations(spec, rules),
    ...networkSpecViolations(spec, rules),
  ]);
  checkRange(spec.resources, asker.limitRange, asker.tenant);
  checkNetworkSpec(spec, rules, asker);
  return spec;
}

/**
 * The resources with some of them changed, under the same rules; of the limit range only what the change names. A request that is
 * not named shrinks with its limit.
 *
 * @throws SandboxdError INVALID_FIELD or LIMIT_RANGE_VIOLATED.
 */
export function changedResources(
  present: Resources,
  change: Partial<Resources>,
  rules: Pick<Rules, "limits">,
  asker: Pick<Asker, "tenant" | "limitRange">,
): Resources {
  const cpuMillis = change.cpuMillis ?? present.cpuMillis;
  const memoryBytes = change.memoryBytes ?? present.memoryBytes;
  const resources = {
    ...present,
    cpuRequestMillis: Math.min(present.cpuRequestMillis, cpuMillis),
    memoryRequestBytes: Math.min(present.memoryRequestBytes, memoryBytes),
    ...change,
  };
  // the sizes of /tmp and /dev/shm are fixed, and what is in them counts as memory in any case
  const isFixed = (field: string) => field.endsWith(".tmpfs_bytes") || field.endsWith(".shm_bytes");
  throwIfAny(resourceViolations(resources, rules.limits).filter(({ field }) => !isFixed(field)));
  const isNamed = (key: string): key is keyof typeof rangeNames => Object.hasOwn(rangeNames, key);
  checkRange(resources, asker.limitRange, asker.tenant, Object.keys(change).filter(isNamed));
  return resources;
}

/** @throws SandboxdError INVALID_FIELD for a label that is reserved. */
export function checkLabels(labels: Readonly<Record<string, string>>, field: string): void {
  throwIfAny(labelViolations(labels, field));
}

/**
 * Equal for requests that mean the same, over releases: earlier ones knew no other mode than NONE, and took no notice of who asked for it.
 */
export function hashOfRequest(tenant: string, { networkMode, ...request }: SpecRequest): string {
  const asked = networkMode === undefined || networkMode === "NONE" ? request : { ...request, networkMode };
  const canonical = JSON.stringify([tenant, asked], (_key, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return createHash("sha256").update(canonical).digest("hex");
}

/** Whether a create asks for the sandbox that is there. */
export function isRepeated(
  existing: Pick<SandboxRecord, "tenant" | "requestHash" | "spec">,
  tenant: string,
  request: SpecRequest,
): boolean {
  if (existing.tenant !== tenant || existing.requestHash !== hashOfRequest(tenant, request)) return false;
  // who asks for none must not be given what a template had for one that did not ask
  return request.networkMode !== "NONE" || existing.spec.networkMode === "NONE";
}

type TemplateResources = Config["templates"][string]["resources"];

function effectiveResources(
  asked: Partial<Resources>,
  template: Partial<TemplateResources>,
  { defaults, capacity }: Rules,
  range: LimitRange,
): Resources {
  const { blockIo: templateIo, ...templateLimits } = template;
  const asserted = { ...defined(templateLimits), ...defined(asked) };
  const named = { ...range.defaults, ...asserted };
  const blockIo = { ...defined(templateIo ?? {}), ...defined(asked.blockIo ?? {}) };
  /** As somebody named it, or the host's default as far as the tenant's range allows that. */
  const amountOf = (key: keyof typeof defaults & keyof typeof rangeNames) =>
    named[key] ?? within(range, key, defaults[key]);
  const cpuMillis = amountOf("cpuMillis");
  const memoryBytes = amountOf("memoryBytes");
  /** The tenant's default, or the share that overcommitment leaves of the limit, as far as the tenant's range allows that. */
  const requestOf = (
    key: "cpuRequestMillis" | "memoryRequestBytes",
    limit: number,
    overcommit: number,
    ratio: number | undefined,
  ) => {
    const usual = range.defaults[key] ?? within(range, key, Math.ceil(limit / overcommit));
    return asserted[key] ?? Math.min(limit, Math.max(usual, leastRequest(limit, ratio)));
  };
  // a default that does not fit into the memory asked for is no reason to refuse it
  const sizeOf = (key: "tmpfsBytes" | "shmBytes") =>
    asked[key] !== undefined || templateLimits[key] !== undefined
      ? amountOf(key)
      : Math.min(amountOf(key), memoryBytes);
  return {
    cpuMillis,
    cpuRequestMillis: requestOf("cpuRequestMillis", cpuMillis, capacity.cpuOvercommit, range.maxRatio.cpu),
    memoryBytes,
    memoryRequestBytes: requestOf(
      "memoryRequestBytes",
      memoryBytes,
      capacity.memoryOvercommit,
      range.maxRatio.memory,
    ),
    pids: amountOf("pids"),
    openFiles: amountOf("openFiles"),
    tmpfsBytes: sizeOf("tmpfsBytes"),
    tmpfsInodes: amountOf("tmpfsInodes"),
    shmBytes: sizeOf("shmBytes"),
    logBytes: amountOf("logBytes"),
    ...(Object.keys(blockIo).length === 0 ? {} : { blockIo }),
  };
}

function specViolations(spec: Spec): readonly FieldViolation[] {
  const words = [
    ...spec.command,
    ...spec.args,
    ...Object.entries(spec.env).map(([name, value]) => `${name}=${value}`),
  ];
  const bytes = words.reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0);
  const parts = spec.workingDir.split("/");
  return [
    ...violationIf(
      spec.image === "",
      "spec.image",
      "required: neither the request nor its template names an image",
    ),
    ...violationIf(
      bytes > environmentBytes,
      "spec.env",
      `command, args and env together have ${bytes} bytes; at most ${environmentBytes} are allowed`,
    ),
    ...Object.keys(spec.env)
      .filter((name) => /^(LD_|SANDBOXD_)/.test(name))
      .map((name) => ({
        field: `spec.env["${name}"]`,
        description: "names beginning with LD_ or SANDBOXD_ are reserved",
      })),
    ...violationIf(
      parts.includes("..") ||
        parts.includes(".") ||
        ["proc", "sys", "dev"].includes(parts.find((part) => part !== "") ?? ""),
      "spec.working_dir",
      `"${spec.workingDir}" must be a plain path and not lie under /proc, /sys or /dev`,
    ),
    ...labelViolations(spec.labels, "spec.labels"),
  ];
}

function labelViolations(labels: Readonly<Record<string, string>>, field: string): readonly FieldViolation[] {
  return Object.keys(labels)
    .filter((key) => key.startsWith(reservedLabelPrefix))
    .map((key) => ({
      field: `${field}["${key}"]`,
      description: `keys beginning with "${reservedLabelPrefix}" are reserved`,
    }));
}

const bounded = {
  cpuMillis: "cpu_millis",
  memoryBytes: "memory_bytes",
  pids: "pids",
  openFiles: "open_files",
  tmpfsBytes: "tmpfs_bytes",
  tmpfsInodes: "tmpfs_inodes",
  shmBytes: "shm_bytes",
  logBytes: "log_bytes",
} as const;

function resourceViolations(resources: Resources, limits: Rules["limits"]): readonly FieldViolation[] {
  const path = (name: string) => `spec.resources.${name}`;
  const within = Object.entries(bounded).flatMap(([key, name]) => {
    const value = resources[key as keyof typeof bounded];
    const [least, most] = [limits.min[key as keyof typeof bounded], limits.max[key as keyof typeof bounded]];
    return violationIf(
      value < least || value > most,
      path(name),
      `${value} is outside of this host's ${least} to ${most}`,
    );
  });
  const atMost = (field: string, value: number, limit: string, most: number) =>
    violationIf(value > most, path(field), `${value} is above ${limit}, ${most}`);
  return [
    ...within,
    ...atMost("cpu_request_millis", resources.cpuRequestMillis, "cpu_millis", resources.cpuMillis),
    ...atMost("memory_request_bytes", resources.memoryRequestBytes, "memory_bytes", resources.memoryBytes),
    ...atMost("tmpfs_bytes", resources.tmpfsBytes, "memory_bytes", resources.memoryBytes),
    ...atMost("shm_bytes", resources.shmBytes, "memory_bytes", resources.memoryBytes),
  ];
}

function violationIf(broken: boolean, field: string, description: string): readonly FieldViolation[] {
  return broken ? [{ field, description }] : [];
}
