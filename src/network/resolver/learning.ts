// Which addresses the firewall was told of for whom, so that it is told before the answer goes out, and not again with each answer
// from memory.

import type { EffectiveEgress } from "../effective.ts";

/** Opens the way to addresses of a name. Rejects where it cannot. */
export type Learn = (
  sandboxId: string,
  addresses: readonly { readonly address: string; readonly ttlMs: number; readonly name: string }[],
) => Promise<void>;

/** Addresses by which a name is reached, until when. */
export interface Found {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly untilMs: number;
}

export interface LearningOptions {
  readonly learn: Learn;
  readonly nowMs: () => number;
}

export interface Learning {
  /** Resolves once the addresses can be reached for as long as the answer is valid, and a while longer. Rejects as `learn`. */
  ensure(sandboxId: string, egress: EffectiveEgress, found: Found): Promise<void>;
  forget(sandboxId: string): void;
}

/** Programs connect some time after they asked, and some keep what they were told for half a minute. */
const graceMs = 60_000;
/** Told again after so long though it need not be: whatever the kernel lost meanwhile is there again soon. */
const trustedMs = 10_000;
/** Of one sandbox; beyond that it is told again. */
const mostAddresses = 1_024;

interface Learnt {
  readonly policy: string;
  /** By address and name. */
  readonly entries: Map<string, { readonly untilMs: number; readonly toldAtMs: number }>;
}

export function createLearning({ learn, nowMs }: LearningOptions): Learning {
  const bySandbox = new Map<string, Learnt>();

  function learntOf(sandboxId: string, egress: EffectiveEgress): Learnt["entries"] {
    const policy = JSON.stringify(egress);
    const known = bySandbox.get(sandboxId);
    if (known?.policy === policy && known.entries.size < mostAddresses) return known.entries;
    const entries: Learnt["entries"] = new Map();
    bySandbox.set(sandboxId, { policy, entries });
    return entries;
  }

  return {
    async ensure(sandboxId, egress, { name, addresses, untilMs }) {
      const learnt = learntOf(sandboxId, egress);
      const now = nowMs();
      const news = addresses.filter((address) => {
        const known = learnt.get(`${address} ${name}`);
        return known === undefined || known.untilMs < untilMs || now >= known.toldAtMs + trustedMs;
      });
      if (news.length === 0) return;
      const ttlMs = Math.max(0, untilMs - now) + graceMs;
      await learn(
        sandboxId,
        news.map((address) => ({ address, ttlMs, name })),
      );
      for (const address of news) learnt.set(`${address} ${name}`, { untilMs, toldAtMs: now });
    },
    forget: (sandboxId) => void bySandbox.delete(sandboxId),
  };
}
