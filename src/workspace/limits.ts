// What a workspace may hold: from what a request says to complete limits, and what follows when a soft one is exceeded.

import { createHash } from "node:crypto";
import { type FieldViolation, SandboxdError, throwIfAny } from "../errors.ts";
import type { BackendKind, SpaceUsage } from "./backend/backend.ts";
import type { Excess, WorkspaceLimits } from "./record.ts";

/** What a caller asks; absent means the default, or for a change: as it is. */
export interface LimitsRequest {
  readonly bytes?: number;
  readonly inodes?: number;
  readonly softBytes?: number;
  readonly softInodes?: number;
  readonly softGraceMs?: number;
}

export interface LimitRules {
  readonly defaultBytes: number;
  readonly maxBytes: number;
}

/** What a backend can hold. */
export interface Holding {
  readonly kind: BackendKind;
  readonly boundsInodes: boolean;
  readonly resizesLive: boolean;
}

/** As ext4 itself makes them. */
const bytesPerInode = 16_384;

/** @throws SandboxdError INVALID_FIELD naming each field that breaks a rule; LIMIT_UNENFORCEABLE for what the backend cannot hold. */
export function effectiveLimits(
  request: LimitsRequest,
  rules: LimitRules,
  backend: Holding,
): WorkspaceLimits {
  const bytes = request.bytes ?? rules.defaultBytes;
  const limits: WorkspaceLimits = {
    ...(backend.boundsInodes ? { inodes: Math.max(64, Math.floor(bytes / bytesPerInode)) } : {}),
    ...request,
    bytes,
  };
  check(limits, rules, backend);
  return limits;
}

/** The limits with some of them changed, under the same rules. */
export function changedLimits(
  present: WorkspaceLimits,
  change: LimitsRequest,
  options: { readonly clearsSoft: boolean },
  rules: LimitRules,
  backend: Holding,
): WorkspaceLimits {
  const { bytes, inodes } = present;
  const kept = options.clearsSoft ? { bytes, ...(inodes === undefined ? {} : { inodes }) } : present;
  const limits = { ...kept, ...change };
  // what was allowed once and stays as it is, is no reason to refuse something else
  const most = Math.max(rules.maxBytes, present.bytes);
  check(limits, { ...rules, maxBytes: most }, backend);
  return limits;
}

function check(limits: WorkspaceLimits, { maxBytes }: LimitRules, backend: Holding): void {
  const found: FieldViolation[] = [];
  if (limits.bytes > maxBytes) {
    found.push({
      field: "limits.size_bytes",
      description: `${limits.bytes} is above this host's ${maxBytes}`,
    });
  }
  const soft = (name: string, value: number | undefined, hard: number | undefined, hardName: string) => {
    if (value === undefined) return;
    if (hard === undefined || value > hard) {
      const description =
        hard === undefined
          ? `${value} has no ${hardName} to be below`
          : `${value} is above ${hardName}, ${hard}`;
      found.push({ field: `limits.${name}`, description });
    }
  };
  soft("soft_bytes", limits.softBytes, limits.bytes, "size_bytes");
  if (backend.boundsInodes) soft("soft_inodes", limits.softInodes, limits.inodes, "inodes");
  if (limits.softGraceMs !== undefined && limits.softBytes === undefined && limits.softInodes === undefined) {
    found.push({ field: "limits.soft_grace", description: "there is no soft limit that it could be for" });
  }
  throwIfAny(found);
  if (!backend.boundsInodes && (limits.inodes !== undefined || limits.softInodes !== undefined)) {
    const name = limits.inodes !== undefined ? "inodes" : "soft_inodes";
    throw unenforceable(
      `limits.${name}`,
      `${backend.kind} cannot bound or count files; their metadata counts as bytes`,
      "ask without it, or use a host with PROJECT_QUOTA or LOOP_IMAGE",
    );
  }
  if (!backend.resizesLive && limits.softGraceMs !== undefined) {
    throw unenforceable(
      "limits.soft_grace",
      `${backend.kind} cannot change its limits while sandboxes run with it`,
      "ask without it: soft limits then only warn",
    );
  }
}

function unenforceable(field: string, why: string, hint: string): SandboxdError {
  return new SandboxdError("LIMIT_UNENFORCEABLE", `${field}: ${why}`, {
    hint,
    fields: [{ field, description: why }],
  });
}

/** Equal for requests that mean the same. */
export function hashOfRequest(
  tenant: string,
  limits: LimitsRequest,
  labels: Readonly<Record<string, string>>,
): string {
  const sorted = (values: object) => Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1));
  const canonical = JSON.stringify([tenant, sorted(limits), sorted(labels)]);
  return createHash("sha256").update(canonical).digest("hex");
}

/** What may still be written while limits are brought down to what is used: they are never set below that. */
const slackBytes = 1_048_576;
const slackInodes = 16;

/**
 * What is to be known of soft limits after a look at what is used; undefined: none is exceeded. Once the grace is over, nothing may grow: what is
 * held then follows what is used down, to the soft limit at the least, as quotas of file systems have it.
 */
export function followExcess(
  before: Excess | undefined,
  limits: WorkspaceLimits,
  usage: SpaceUsage,
  now: { readonly wallMs: number; readonly steadyMs: number },
): Excess | undefined {
  const isAbove = (used: number | undefined, soft: number | undefined) =>
    used !== undefined && soft !== undefined && used > soft;
  const exceeded = [
    ...(isAbove(usage.bytes, limits.softBytes) ? (["soft_bytes"] as const) : []),
    ...(isAbove(usage.inodes, limits.softInodes) ? (["soft_inodes"] as const) : []),
  ];
  if (exceeded.length === 0) return undefined;
  const { softGraceMs } = limits;
  const excess: Excess = {
    limits: exceeded,
    sinceMs: before?.sinceMs ?? now.wallMs,
    ...(softGraceMs === undefined ? {} : { graceEndMs: before?.graceEndMs ?? now.steadyMs + softGraceMs }),
  };
  if (excess.graceEndMs === undefined || now.steadyMs < excess.graceEndMs) return excess;
  const heldOf = (
    hard: number,
    soft: number | undefined,
    used: number,
    held: number | undefined,
    slack: number,
  ) => (soft === undefined ? hard : Math.min(held ?? hard, Math.max(soft, used + slack)));
  return {
    ...excess,
    held: {
      bytes: heldOf(limits.bytes, limits.softBytes, usage.bytes, before?.held?.bytes, slackBytes),
      ...(limits.inodes === undefined
        ? {}
        : {
            inodes: heldOf(
              limits.inodes,
              limits.softInodes,
              usage.inodes ?? 0,
              before?.held?.inodes,
              slackInodes,
            ),
          }),
    },
  };
}
