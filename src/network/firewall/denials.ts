// What sandboxes were refused, from the counters of the kernel: they begin anew when the tables do, and are forgotten some time after the
// last packet, which is made up for here.

import { addressOfMac, macOf } from "./elements.ts";
import type { ListedElement } from "./listing.ts";
import { type Refusal, refusals } from "./rules.ts";
import { sampleSeconds } from "./tables.ts";

/** Packets, over the life of this object. */
export type Denials = Readonly<Record<Refusal, number>>;

/** A packet that was refused, with how many others were for the same reason since the sample before. */
export interface DenialSample {
  readonly sandboxId: string;
  readonly reason: Refusal;
  /** Its address, and its port if it has one. */
  readonly destination: string;
  readonly protocol?: "TCP" | "UDP";
  readonly count: number;
  /** By the wall clock, to within a few seconds. */
  readonly timeMs: number;
}

/** Who has an address, and since when by the clock of `nowMs`. */
export interface Owner {
  readonly sandboxId: string;
  readonly sinceMs: number;
}

export interface DenialCounts {
  /** What the sets named "denied" have now, which are told apart by `table`. Returns whether it is more than before. */
  count(table: string, elements: readonly ListedElement[]): boolean;
  /** What the sets named "tried" have now. Returns those that are new. */
  sample(table: string, elements: readonly ListedElement[]): readonly DenialSample[];
  all(): ReadonlyMap<string, Denials>;
  forget(sandboxId: string): void;
  /** An address has another owner: what was counted for it until the next look is nobody's. */
  reassign(address: string): void;
}

const none: Denials = { policy: 0, host: 0, peer: 0, spoofed: 0, connections: 0, packets: 0 };
const reasons = new Map(Object.entries(refusals).map(([reason, mark]) => [String(mark), reason as Refusal]));

export interface DenialCountsOptions {
  readonly ownerOf: (address: string) => Owner | undefined;
  readonly nowMs: () => number;
}

export function createDenialCounts({ ownerOf, nowMs }: DenialCountsOptions): DenialCounts {
  const totals = new Map<string, Denials>();
  /** By element: what it was at the last look. */
  const last = new Map<string, number>();
  /** Elements that were counted for an earlier owner of the address. */
  const earlier = new Set<string>();
  /** By sandbox and reason: what no sample has told yet. */
  const untold = new Map<string, number>();
  /** Samples that were told: until when the kernel has them. */
  const told = new Map<string, number>();

  return {
    count(table, elements) {
      const prefix = `${table} `;
      const seen = new Set<string>();
      let hasRisen = false;
      for (const { parts, id, packets = 0 } of elements) {
        const key = prefix + id;
        seen.add(key);
        const before = last.get(key) ?? 0;
        last.set(key, packets);
        if (earlier.delete(key)) continue;
        const [mac = "", mark = ""] = parts;
        const [owner, reason] = [ownerOf(addressOfMac(mac) ?? ""), reasons.get(mark)];
        if (owner === undefined || reason === undefined) continue;
        // one that counts less than before began anew
        const risen = packets < before ? packets : packets - before;
        if (risen === 0) continue;
        hasRisen = true;
        const total = totals.get(owner.sandboxId) ?? none;
        totals.set(owner.sandboxId, { ...total, [reason]: total[reason] + risen });
        const kind = `${owner.sandboxId} ${reason}`;
        untold.set(kind, (untold.get(kind) ?? 0) + risen);
      }
      for (const key of last.keys()) {
        if (!key.startsWith(prefix) || seen.has(key)) continue;
        last.delete(key);
        earlier.delete(key);
      }
      return hasRisen;
    },
    sample(table, elements) {
      const now = nowMs();
      for (const [key, until] of told) if (until < now) told.delete(key);
      const fresh = elements.flatMap(({ parts, id, expires = 0 }) => {
        const key = `${table} ${id}`;
        const until = now + expires * 1_000;
        const isTold = until <= (told.get(key) ?? 0) + toleranceMs;
        if (isTold) return [];
        told.set(key, until);
        const agoMs = Math.max(0, (sampleSeconds - expires) * 1_000);
        const [mac = "", address = "", protocol = "", port = "", mark = String(refusals.peer)] = parts;
        const [owner, reason] = [ownerOf(addressOfMac(mac) ?? ""), reasons.get(mark)];
        if (owner === undefined || reason === undefined || now - agoMs + toleranceMs < owner.sinceMs)
          return [];
        const hasPort = protocol === "tcp" || protocol === "udp";
        return [
          {
            sandboxId: owner.sandboxId,
            reason,
            destination: hasPort ? `${address}:${port}` : address,
            ...(hasPort ? { protocol: protocol === "tcp" ? ("TCP" as const) : ("UDP" as const) } : {}),
            timeMs: Date.now() - agoMs,
          },
        ];
      });
      return fresh.map((sample, index) => {
        const kind = `${sample.sandboxId} ${sample.reason}`;
        const others = fresh
          .slice(index + 1)
          .filter(({ sandboxId, reason }) => `${sandboxId} ${reason}` === kind).length;
        // each stands for itself, and the last for all the others
        const count = others > 0 ? 1 : Math.max(1, untold.get(kind) ?? 1);
        untold.set(kind, Math.max(0, (untold.get(kind) ?? 0) - count));
        return { ...sample, count };
      });
    },
    all: () => totals,
    forget(sandboxId) {
      totals.delete(sandboxId);
      for (const reason of reasons.values()) untold.delete(`${sandboxId} ${reason}`);
    },
    reassign(address) {
      const mac = ` ${macOf(address)} `;
      for (const key of last.keys()) if (key.includes(mac)) earlier.add(key);
    },
  };
}

/** nft tells whole seconds. */
const toleranceMs = 2_000;
