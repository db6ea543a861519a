// What the kernel is to hold, as a value. A change makes another one and leaves the old as it is, so that to take a change back is to
// forget it.

import { SandboxdError } from "../../errors.ts";
import { contains, parseAddress, parseCidr } from "../addresses.ts";
import { internalNumber, isWithin, numberOf, type Policy, policyOf } from "./policies.ts";
import type { BridgeRules, FirewallChange, SandboxRules } from "./rules.ts";

export interface HeldSandbox {
  readonly rules: SandboxRules;
  /** The number of its policy. */
  readonly policy: number;
}

export interface HeldPolicy {
  readonly number: number;
  readonly policy: Policy;
  /** Numbers of policies whose names it allows too, its own among them: connections to those go on. */
  readonly heirOf: ReadonlySet<number>;
}

export interface State {
  readonly bridges: ReadonlyMap<string, BridgeRules>;
  readonly sandboxes: ReadonlyMap<string, HeldSandbox>;
  readonly policies: ReadonlyMap<number, HeldPolicy>;
  /** By bridge and address: whose it is. */
  readonly owners: ReadonlyMap<string, string>;
}

export const noState: State = {
  bridges: new Map(),
  sandboxes: new Map(),
  policies: new Map(),
  owners: new Map(),
};

/** Further ones are forgotten: connections that are as old as so many changes have to be made anew. */
const mostInherited = 32;

/** An interface's name, as the kernel takes it and rules can have it. */
const interfacePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/;

/** A state that changes are added to. */
export interface Draft {
  /** @throws SandboxdError INTERNAL for what cannot be held: a name or an address that is none, or one that another has. Then nothing is added. */
  add(change: FirewallChange): void;
  /** The one that a sandbox has. */
  policyOf(sandboxId: string): HeldPolicy | undefined;
  /** All that was added. */
  state(): State;
}

export function draftOf(before: State): Draft {
  const bridges = new Map(before.bridges);
  const sandboxes = new Map(before.sandboxes);
  const policies = new Map(before.policies);
  const owners = new Map(before.owners);

  const release = (id: string) => {
    const rules = sandboxes.get(id)?.rules;
    if (rules !== undefined && owners.get(placeOf(rules)) === id) owners.delete(placeOf(rules));
    sandboxes.delete(id);
  };

  /** Two with one address could not be told apart. */
  function assertApart({ remove = [], put = [] }: FirewallChange): void {
    const places = new Map(put.map((rules) => [rules.sandboxId, placeOf(rules)]));
    const taken = new Map<string, string>();
    for (const [id, place] of places) {
      const [rival, owner] = [taken.get(place), owners.get(place)];
      if (rival !== undefined) throw apart(place, rival, id);
      taken.set(place, id);
      const isFree = owner === undefined || owner === id || remove.includes(owner) || places.has(owner);
      if (!isFree) throw apart(place, owner, id);
    }
  }

  function put(rules: SandboxRules): void {
    const policy = rules.egress && addPolicy(policies, policyOf(rules.egress));
    if (policy !== undefined) inherit(policies, policy, sandboxes.get(rules.sandboxId)?.policy);
    release(rules.sandboxId);
    sandboxes.set(rules.sandboxId, { rules, policy: policy ?? internalNumber });
    owners.set(placeOf(rules), rules.sandboxId);
  }

  return {
    add(change) {
      for (const rules of change.putBridges ?? []) assertBridge(rules);
      for (const rules of change.put ?? []) assertSandbox(rules);
      assertApart(change);
      for (const bridge of change.removeBridges ?? []) bridges.delete(bridge);
      for (const rules of change.putBridges ?? []) bridges.set(rules.bridge, rules);
      for (const id of change.remove ?? []) release(id);
      for (const rules of change.put ?? []) put(rules);
    },
    policyOf: (sandboxId) => policies.get(sandboxes.get(sandboxId)?.policy ?? internalNumber),
    state() {
      const used = new Set([...sandboxes.values()].map(({ policy }) => policy));
      for (const number of policies.keys()) if (!used.has(number)) policies.delete(number);
      return { bridges, sandboxes, policies, owners };
    },
  };
}

const placeOf = ({ bridge, address }: SandboxRules) => `${address} on ${bridge}`;

/** The same, with what an earlier life of the daemon knew of whose connections go on under which policy. */
export function inherited(state: State, pairs: readonly (readonly [number, number])[]): State {
  const policies = new Map(state.policies);
  for (const [ancestor, number] of pairs) {
    const held = policies.get(number);
    if (held === undefined || held.policy.domains.length === 0 || held.heirOf.size >= mostInherited) continue;
    policies.set(number, { ...held, heirOf: new Set([...held.heirOf, ancestor]) });
  }
  return { ...state, policies };
}

function addPolicy(policies: Map<number, HeldPolicy>, policy: Policy): number {
  const number = numberOf(policy, (taken) => (policies.get(taken)?.policy.key ?? policy.key) !== policy.key);
  if (!policies.has(number)) {
    policies.set(number, { number, policy, heirOf: new Set(policy.domains.length === 0 ? [] : [number]) });
  }
  return number;
}

function inherit(policies: Map<number, HeldPolicy>, number: number, beforeNumber: number | undefined): void {
  const [before, held] = [policies.get(beforeNumber ?? internalNumber), policies.get(number)];
  if (before === undefined || held === undefined || before.policy.domains.length === 0) return;
  if (!isWithin(before.policy, held.policy)) return;
  const heirOf = new Set([...held.heirOf, ...before.heirOf].slice(0, mostInherited));
  if (heirOf.size > held.heirOf.size) policies.set(number, { ...held, heirOf });
}

function assertBridge({ bridge, subnet, gateway }: BridgeRules): void {
  if (!interfacePattern.test(bridge)) throw unusable("bridge", bridge);
  const block = parseCidr(subnet);
  if (block === undefined) throw unusable("subnet", subnet);
  const address = parseAddress(gateway);
  if (address === undefined || !contains(block, { base: address, prefix: 32 }))
    throw unusable("gateway", gateway);
}

function assertSandbox({ bridge, address }: SandboxRules): void {
  if (!interfacePattern.test(bridge)) throw unusable("bridge", bridge);
  if (parseAddress(address) === undefined) throw unusable("address", address);
}

function apart(place: string, owner: string, id: string): SandboxdError {
  return new SandboxdError("INTERNAL", `${place} is of sandbox "${owner}", not of "${id}"`);
}

function unusable(what: string, value: string): SandboxdError {
  return new SandboxdError("INTERNAL", `no rules can be made for ${what} "${value}"`);
}
