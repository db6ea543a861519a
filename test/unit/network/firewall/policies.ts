// Rules for tests of the firewall.

import type { EffectiveEgress } from "../../../../src/network/effective.ts";
import type { BridgeRules, FirewallChange, SandboxRules } from "../../../../src/network/firewall/rules.ts";
import { draftOf, noState, type State } from "../../../../src/network/firewall/state.ts";

export const bridge: BridgeRules = {
  bridge: "sbx0a",
  subnet: "10.77.0.0/28",
  gateway: "10.77.0.1",
  peers: false,
};

export function egressOf(policy: Partial<EffectiveEgress> = {}): EffectiveEgress {
  return {
    scope: "PUBLIC",
    ports: [{ protocol: "TCP", first: 443, last: 443 }],
    allowCidrs: [],
    denyCidrs: [],
    allowDomains: [],
    ...policy,
  };
}

export function sandbox(id: string, last: number, rules: Partial<SandboxRules> = {}): SandboxRules {
  return { sandboxId: id, bridge: bridge.bridge, address: `10.77.0.${last}`, limits: {}, ...rules };
}

/** What changes lead to, one after the other. */
export function stateOf(...changes: readonly FirewallChange[]): State {
  return changes.reduce((state, change) => {
    const draft = draftOf(state);
    draft.add(change);
    return draft.state();
  }, noState);
}
