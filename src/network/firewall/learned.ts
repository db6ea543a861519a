// Addresses of names that the resolver answered, by the number of the policy that allows the name, for as long as the answer is valid.
// The kernel lets go of them by itself; here they are known to put them back, and to give them to a policy that takes the place of another.

import { SandboxdError } from "../../errors.ts";
import { matchesDomain } from "../domains.ts";
import { isWithin } from "./policies.ts";
import type { HeldPolicy, State } from "./state.ts";

export interface LearnedAddress {
  readonly address: string;
  readonly ttlMs: number;
  /** The name that has it. Without, a policy that allows fewer names than the one it was learned for does not get it. */
  readonly name?: string;
}

export interface Learned {
  /** Makes them known. Resolves to those of which the kernel does not know for so long yet. */
  add(policy: number, addresses: readonly LearnedAddress[]): readonly KernelAddress[];
  /** What the policies of a state get from those of the one before it that they take the place of, as far as they allow it. */
  follow(before: State, after: State): readonly KernelAddress[];
  /** Forgets policies that there are no more. */
  retain(state: State): void;
  /** All of it. */
  all(): readonly KernelAddress[];
  /** For when the kernel did not take them: they are asked for again. */
  forget(addresses: readonly KernelAddress[]): void;
}

/** An element of the set. */
export interface KernelAddress {
  readonly policy: number;
  readonly address: string;
  readonly ttlMs: number;
}

/** Of one policy: who answers for a name that is allowed can give any number of addresses. */
const mostOfPolicy = 4_096;
const nameless = "";
/** Not worth a transaction. */
const slackMs = 500;

/** Until when, by the clock of `nowMs`. */
type Names = Map<string, number>;

export function createLearned({ nowMs }: { readonly nowMs: () => number }): Learned {
  const byPolicy = new Map<number, Map<string, Names>>();

  const untilOf = (names: Names | undefined) => Math.max(0, ...(names?.values() ?? []));

  function prune(addresses: Map<string, Names>): void {
    const now = nowMs();
    for (const [address, names] of addresses) if (untilOf(names) <= now) addresses.delete(address);
  }

  /** Whether it is known for longer now. */
  function note(policy: number, address: string, name: string, until: number): boolean {
    const addresses = byPolicy.get(policy) ?? new Map<string, Names>();
    byPolicy.set(policy, addresses);
    if (!addresses.has(address) && addresses.size >= mostOfPolicy) {
      prune(addresses);
      if (addresses.size >= mostOfPolicy) {
        throw new SandboxdError(
          "NETWORK_UNAVAILABLE",
          `names of one policy have more than ${mostOfPolicy} addresses at once`,
          { hint: "allow fewer names, or name the blocks of their addresses in allow_cidrs" },
        );
      }
    }
    const names: Names = addresses.get(address) ?? new Map();
    addresses.set(address, names);
    const before = untilOf(names);
    names.set(name, Math.max(names.get(name) ?? 0, until));
    return until > before + slackMs;
  }

  /** Addresses of names that another policy allows too. */
  function common(from: HeldPolicy, to: HeldPolicy): readonly (readonly [string, string, number])[] {
    const allows = isWithin(from.policy, to.policy)
      ? () => true
      : (name: string) => to.policy.domains.some((pattern) => matchesDomain(pattern, name));
    const now = nowMs();
    return [...(byPolicy.get(from.number) ?? [])].flatMap(([address, names]) =>
      [...names].flatMap(([name, until]) =>
        until > now && allows(name) ? [[address, name, until] as const] : [],
      ),
    );
  }

  function live(policy: number): readonly KernelAddress[] {
    const now = nowMs();
    return [...(byPolicy.get(policy) ?? [])].flatMap(([address, names]) => {
      const ttlMs = untilOf(names) - now;
      return ttlMs > 0 ? [{ policy, address, ttlMs }] : [];
    });
  }

  return {
    add(policy, addresses) {
      const now = nowMs();
      return addresses.flatMap(({ address, ttlMs, name = nameless }) =>
        note(policy, address, name, now + ttlMs) ? [{ policy, address, ttlMs }] : [],
      );
    },
    follow(before, after) {
      const changes = new Set<number>();
      for (const [id, { policy }] of after.sandboxes) {
        const old = before.sandboxes.get(id)?.policy;
        if (old === undefined || old === policy) continue;
        const [from, to] = [before.policies.get(old), after.policies.get(policy)];
        if (from === undefined || to === undefined) continue;
        for (const [address, name, until] of common(from, to)) {
          if (note(policy, address, name, until)) changes.add(policy);
        }
      }
      return [...changes].flatMap(live);
    },
    retain({ policies }) {
      for (const policy of byPolicy.keys()) if (!policies.has(policy)) byPolicy.delete(policy);
    },
    all: () => [...byPolicy.keys()].flatMap(live),
    forget(addresses) {
      for (const { policy, address } of addresses) byPolicy.get(policy)?.delete(address);
    },
  };
}

/** Adds, or moves the time until which they are known: first there, then not, then there anew, which is one step for packets. */
export function learnedText(addresses: readonly KernelAddress[], table: string): string {
  if (addresses.length === 0) return "";
  const keys = addresses.map(({ policy, address }) => `${policy} . ${address}`);
  const timed = addresses.map(
    ({ policy, address, ttlMs }) => `${policy} . ${address} timeout ${Math.max(1, Math.ceil(ttlMs))}ms`,
  );
  const command = (verb: string, elements: readonly string[]) =>
    `${verb} element inet ${table} learned {\n${elements.join(",\n")}\n}\n`;
  return (
    command(
      "add",
      keys.map((key) => `${key} timeout 1h`),
    ) +
    command("delete", keys) +
    command("add", timed)
  );
}
