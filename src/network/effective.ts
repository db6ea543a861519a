// What a sandbox may do on its network now: its tenant's policy and its own together. Pure, and never wider than either.

import {
  canonicalEgress,
  intersectEgress,
  leastLimits,
  reachableByAddress,
  withinHost,
} from "./intersect.ts";
import {
  type EgressPolicy,
  type NetworkLimits,
  type NetworkMode,
  nothing,
  type SandboxNetworkSpec,
  type TenantNetwork,
} from "./policy.ts";
import type { EgressProxy } from "./proxy.ts";
import { hasAddress } from "./ranges.ts";

/**
 * What may be reached, in canonical form: policies that allow the same are equal values. `ports` may be empty: then nothing is.
 */
export interface EffectiveEgress extends EgressPolicy {
  /** That and nothing else may be reached, and no name is answered. */
  readonly proxy?: { readonly address: string; readonly port: number };
}

export interface EffectiveNetwork {
  /** Of its spec, or less where its tenant may no longer have that. */
  readonly mode: NetworkMode;
  /** Only with EGRESS. */
  readonly egress?: EffectiveEgress;
  readonly limits: NetworkLimits;
  readonly proxy?: EgressProxy;
}

export type Proxies = Readonly<Record<string, EgressProxy>>;

/**
 * Used live: what a tenant's policy no longer allows, or refers to in vain, is narrowed to what is left. `allowPrivate` are the blocks
 * that are not public and that the host allows now; absent: those that the policies name.
 */
export function effectiveNetwork(
  tenant: TenantNetwork,
  spec: SandboxNetworkSpec,
  proxies: Proxies,
  allowPrivate?: readonly string[],
): EffectiveNetwork {
  const mode = modeLeft(tenant, spec.networkMode);
  const limits = leastLimits(tenant.limits, spec.networkLimits ?? {});
  if (mode !== "EGRESS") return { mode, limits };
  const proxy = proxyOf(tenant, proxies);
  const egress = egressOf(tenant, spec.egress, proxy, allowPrivate);
  return { mode, egress, limits, ...(proxy === undefined ? {} : { proxy }) };
}

interface Known {
  /** What it follows from, besides the policies. */
  readonly from: string;
  readonly egress: EffectiveEgress;
}

/** By the policy of the tenant, then by that of the spec or the tenant's again. It is asked for with each question for a name. */
const known = new WeakMap<TenantNetwork, WeakMap<object, Known>>();

function egressOf(
  tenant: TenantNetwork,
  asked: EgressPolicy | undefined,
  proxy: EgressProxy | undefined,
  allowPrivate: readonly string[] | undefined,
): EffectiveEgress {
  const ofTenant = known.get(tenant) ?? new WeakMap<object, Known>();
  known.set(tenant, ofTenant);
  const from = JSON.stringify([proxy?.address, proxy?.port, allowPrivate]);
  const before = ofTenant.get(asked ?? tenant);
  if (before?.from === from) return before.egress;
  const egress = computed(tenant, asked, proxy, allowPrivate);
  ofTenant.set(asked ?? tenant, { from, egress });
  return egress;
}

function computed(
  tenant: TenantNetwork,
  asked: EgressPolicy | undefined,
  proxy: EgressProxy | undefined,
  allowPrivate: readonly string[] | undefined,
): EffectiveEgress {
  const own = egressOfTenant(tenant, proxy, allowPrivate);
  const egress = asked === undefined ? own : intersectEgress(own, asked);
  if (proxy === undefined) return egress;
  const { address, port } = proxy;
  const isReached = egress.ports.length > 0 && hasAddress(reachableByAddress(egress), address);
  return isReached ? { ...egress, proxy: { address, port } } : nothing;
}

/** What a sandbox of the tenant may reach that asks for nothing less, in canonical form. */
export function tenantEgress(tenant: TenantNetwork, proxies: Proxies): EgressPolicy {
  return egressOfTenant(tenant, proxyOf(tenant, proxies), undefined);
}

function egressOfTenant(
  tenant: TenantNetwork,
  proxy: EgressProxy | undefined,
  allowPrivate: readonly string[] | undefined,
): EgressPolicy {
  if (proxy !== undefined) return throughProxy(proxy);
  // without the proxy that it names nothing tells what that was there to refuse
  if (tenant.proxy !== undefined) return nothing;
  return allowPrivate === undefined
    ? canonicalEgress(tenant.egress)
    : withinHost(tenant.egress, allowPrivate);
}

/** Whether the sandboxes of a tenant reach each other. */
export function peersReach({ allowPeers, modes }: TenantNetwork): boolean {
  return allowPeers && modes.some((mode) => mode !== "NONE");
}

/** Undefined without one, and where the host's configuration has none of that name. */
export function proxyOf({ proxy: name }: TenantNetwork, proxies: Proxies): EgressProxy | undefined {
  return name !== undefined && Object.hasOwn(proxies, name) ? proxies[name] : undefined;
}

function throughProxy({ address, port }: EgressProxy): EgressPolicy {
  const ports = [{ protocol: "TCP", first: port, last: port }] as const;
  return { ...nothing, ports, allowCidrs: [`${address}/32`] };
}

/** INTERNAL is less than EGRESS, and is left where that is allowed. */
function modeLeft({ modes }: TenantNetwork, mode: NetworkMode): NetworkMode {
  if (mode === "NONE" || modes.includes(mode)) return mode;
  return modes.some((allowed) => allowed !== "NONE") ? "INTERNAL" : "NONE";
}
