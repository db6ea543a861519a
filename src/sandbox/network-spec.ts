// The part of an effective spec that says how a sandbox is connected: the request over its template, and the rules that it is held
// against.

import type { Config } from "../config/config.ts";
import { egressOfKeys, hostRulesOf, limitsOfKeys, proxiesOf } from "../config/network-values.ts";
import { type FieldViolation, throwIfAny } from "../errors.ts";
import { checkAllowed, checkMode, type NetworkAsker } from "../network/allowed.ts";
import type { EgressPolicy, NetworkLimits, NetworkMode, SandboxNetworkSpec } from "../network/policy.ts";
import { egressViolations } from "../network/violations.ts";

/** What a request or a template says of it; absent means: what lies below. */
export interface NetworkRequest {
  readonly networkMode?: NetworkMode;
  readonly egress?: EgressPolicy;
  readonly networkLimits?: NetworkLimits;
}

/** What an update changes. */
export interface NetworkChange {
  readonly egress?: EgressPolicy | "tenant's";
  readonly networkLimits?: NetworkLimits | "tenant's";
}

/** What of a configuration networks are held against. */
export type NetworkRules = Pick<Config, "network" | "proxies">;

/** A template's keys as a request would say them. */
export function networkOfTemplate(template: Config["templates"][string]): NetworkRequest {
  const egress = egressOfKeys(template.egress);
  const networkLimits = limitsOfKeys(template.networkLimits);
  return {
    networkMode: template.networkMode.toUpperCase() as Uppercase<typeof template.networkMode>,
    ...(egress === undefined ? {} : { egress }),
    ...(networkLimits === undefined ? {} : { networkLimits }),
  };
}

/** `hasProxy`: of the tenant. What a template says of addresses and names, it does not say of a proxy. */
export function effectiveNetworkSpec(
  request: NetworkRequest,
  template: NetworkRequest,
  { hasProxy }: { readonly hasProxy: boolean },
): SandboxNetworkSpec {
  const networkMode = request.networkMode ?? template.networkMode ?? "NONE";
  // what a template says of a mode that the request does not take is not meant
  const templateEgress = networkMode === "EGRESS" && !hasProxy ? template.egress : undefined;
  const templateLimits = networkMode === "NONE" ? undefined : template.networkLimits;
  const egress = request.egress ?? templateEgress;
  const networkLimits = request.networkLimits ?? templateLimits;
  return {
    networkMode,
    ...(egress === undefined ? {} : { egress }),
    ...(networkLimits === undefined ? {} : { networkLimits }),
  };
}

/** What is wrong with it whoever asks. `at` is the path of the spec: "spec.", or nothing in a request that has its fields. */
export function networkSpecViolations(
  { networkMode, egress, networkLimits }: SandboxNetworkSpec,
  rules: NetworkRules,
  at: "spec." | "" = "spec.",
): readonly FieldViolation[] {
  return [
    ...(egress === undefined ? [] : egressViolations(egress, `${at}egress`, hostRulesOf(rules))),
    ...(egress !== undefined && networkMode !== "EGRESS"
      ? [{ field: `${at}egress`, description: `must be absent with NETWORK_MODE_${networkMode}` }]
      : []),
    ...(networkLimits !== undefined && networkMode === "NONE"
      ? [{ field: `${at}network_limits`, description: "must be absent with NETWORK_MODE_NONE" }]
      : []),
  ];
}

/**
 * @throws SandboxdError NETWORK_NOT_ALLOWED where the tenant's policy does not allow it; NETWORK_UNAVAILABLE if the tenant's proxy
 * is not in the host's configuration.
 */
export function checkNetworkSpec(spec: SandboxNetworkSpec, rules: NetworkRules, asker: NetworkAsker): void {
  checkMode(spec.networkMode, asker);
  checkAllowed(spec, asker, proxiesOf(rules));
}

/**
 * A spec with its policy or its bounds changed, under the same rules.
 *
 * @throws SandboxdError INVALID_FIELD, NETWORK_NOT_ALLOWED or NETWORK_UNAVAILABLE.
 */
export function changedNetwork(
  { networkMode, ...present }: SandboxNetworkSpec,
  change: NetworkChange,
  rules: NetworkRules,
  asker: NetworkAsker,
): SandboxNetworkSpec {
  const of = <T>(asked: T | "tenant's" | undefined, now: T | undefined) =>
    asked === "tenant's" ? undefined : (asked ?? now);
  const egress = of(change.egress, present.egress);
  const networkLimits = of(change.networkLimits, present.networkLimits);
  const spec = {
    networkMode,
    ...(egress === undefined ? {} : { egress }),
    ...(networkLimits === undefined ? {} : { networkLimits }),
  };
  // what is there already and is not named is no reason to refuse anything
  const named = {
    networkMode,
    ...(egress === undefined || change.egress === undefined ? {} : { egress }),
    ...(networkLimits === undefined || change.networkLimits === undefined ? {} : { networkLimits }),
  };
  throwIfAny(networkSpecViolations(named, rules, ""));
  checkAllowed(named, asker, proxiesOf(rules), "");
  return spec;
}
