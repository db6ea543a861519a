// What the firewall is asked to hold.

import type { EffectiveEgress } from "../effective.ts";
import type { NetworkLimits } from "../policy.ts";

/** A tenant's bridge. */
export interface BridgeRules {
  readonly bridge: string;
  readonly subnet: string;
  readonly gateway: string;
  /** Whether the sandboxes on it may talk to each other. */
  readonly peers: boolean;
}

export interface SandboxRules {
  readonly sandboxId: string;
  readonly bridge: string;
  readonly address: string;
  /** Absent: INTERNAL. */
  readonly egress?: EffectiveEgress;
  readonly limits: NetworkLimits;
}

/** What goes away is taken first. What is put replaces what was there under its name. To remove what is not there is no error. */
export interface FirewallChange {
  readonly putBridges?: readonly BridgeRules[];
  readonly removeBridges?: readonly string[];
  readonly put?: readonly SandboxRules[];
  readonly remove?: readonly string[];
}

/** Why packets are refused, and the mark by which rules tell it. Mirrors `sandboxd.v1.NetworkDenials`. */
export const refusals = { policy: 1, host: 2, peer: 3, spoofed: 4, connections: 5, packets: 6 } as const;
export type Refusal = keyof typeof refusals;
