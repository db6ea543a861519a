// The rules of sandboxes' networks in the kernel: put there before anything needs them, compared with what should be there, and put
// back when somebody else took them away. The rules stay when the daemon ends.

import { messageOf } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import { runWithin } from "../program.ts";
import { firstDifference } from "./audit.ts";
import { createDenialCounts, type DenialSample, type Denials } from "./denials.ts";
import { createFence, fenceProblem } from "./fence.ts";
import { createLearned, type LearnedAddress } from "./learned.ts";
import { readListing } from "./listing.ts";
import { createMonitor, type Monitor } from "./monitor.ts";
import { createNft, nftProblem } from "./nft.ts";
import { createOwners } from "./owners.ts";
import type { FirewallChange } from "./rules.ts";
import { wholeTables } from "./ruleset.ts";
import { inherited, noState, type State } from "./state.ts";
import { createTransactions } from "./transactions.ts";

export type { DenialSample, Denials } from "./denials.ts";
export type { FirewallChange } from "./rules.ts";

export interface Firewall {
  /** Why rules cannot be held here, or are not held now; undefined if they are, and before that was found out. */
  problem(): string | undefined;
  /**
   * Resolves once the kernel holds it; changes of one moment are one transaction. The first has to have everything that there is, since
   * it takes the place of what an earlier life of the daemon left. Rejects with NETWORK_UNAVAILABLE; then nothing of the change holds.
   */
  change(change: FirewallChange): Promise<void>;
  /**
   * Lets a sandbox, and all of the same policy, reach addresses of names for as long as their answer is valid. Connections that were
   * made by then go on. Does nothing where the policy allows no names.
   */
  learn(sandboxId: string, addresses: readonly LearnedAddress[]): Promise<void>;
  /** What was refused, by sandbox, over the life of this object. */
  denials(): ReadonlyMap<string, Denials>;
  /** Samples of what is refused, at most one a second of a sandbox. */
  onDenied(listener: (denial: DenialSample) => void): () => void;
  /** Called when it begins or ceases to hold. */
  subscribe(listener: () => void): () => void;
  /** Leaves the rules in the kernel: sandboxes outlive the daemon. */
  close(): Promise<void>;
}

export interface FirewallOptions {
  /** Tells the tables of one daemon from those of another: 8 hexadecimal digits. */
  readonly tag: string;
  /** Blocks that subnets are cut from. */
  readonly pools: readonly string[];
  /** Packets of one sandbox that reach the resolver, however many it sends. Default: 1,000. */
  readonly questionsPerSecond?: number;
  /** Of the gateways, where who checks server names listens. Default: 10,443. */
  readonly sniPort?: number;
  readonly log: Log;
  /** What starts a program in the network namespace of the sandboxes' bridges, if that is not this process's own. */
  readonly within?: readonly string[];
  /** Default: 15 s. */
  readonly verifyEveryMs?: number;
  /** Default: 5 s. */
  readonly countEveryMs?: number;
}

/** After a failure. */
const retryMs = 1_000;

/** Nothing is done in the kernel before the first change. */
export function createFirewall(options: FirewallOptions): Firewall {
  const {
    pools,
    log,
    within = [],
    questionsPerSecond = 1_000,
    sniPort = 10_443,
    verifyEveryMs = 15_000,
    countEveryMs = 5_000,
  } = options;
  const table = `sandboxd_${options.tag}`;
  const tables = { table, pools, questionsPerSecond, sniPort };
  const run = runWithin(within);
  const nft = createNft(run);
  const fence = createFence({ pools, run });
  const nowMs = () => performance.now();
  const learned = createLearned({ nowMs });
  const owners = createOwners(nowMs);
  const counts = createDenialCounts({ ownerOf: owners.of, nowMs });
  const listeners = new Set<() => void>();
  const deniedListeners = new Set<(denial: DenialSample) => void>();
  let monitor: Monitor | undefined;
  /** As listed after the tables were put there. */
  let structure: string | undefined;
  let problems: { readonly tables?: string; readonly fence?: string } = {};
  let isClosed = false;
  let isProbed = false;
  let verifying: Promise<void> | undefined;
  let fencing: Promise<void> | undefined;
  let retry: NodeJS.Timeout | undefined;

  const problem = () => problems.tables ?? problems.fence;

  function tell(change: { readonly tables?: string | undefined; readonly fence?: string | undefined }): void {
    const before = problem();
    const { tables, fence } = { ...problems, ...change };
    problems = { ...(tables === undefined ? {} : { tables }), ...(fence === undefined ? {} : { fence }) };
    if (problem() === before) return;
    if (problem() === undefined) log.info({}, "the kernel holds the rules of networks");
    else log.warn({ err: problem() }, "the kernel does not hold the rules of networks");
    for (const listener of listeners) listener();
  }

  const transactions = createTransactions({
    ...tables,
    nft,
    learned,
    monitor: () => monitor,
    log,
    takeOver,
    onChanged(before, after) {
      for (const address of owners.follow(after)) counts.reassign(address);
      for (const id of before.sandboxes.keys()) if (!after.sandboxes.has(id)) counts.forget(id);
      if (monitor !== undefined) return;
      monitor = createMonitor({ table, within, onChange: () => void verify(), log });
      tell({ tables: undefined });
      // beside whoever waits for the change: sandboxes that ran under an earlier life have their fence
      void verify();
    },
  });

  /** What names an earlier life had learned for policies that there are again, and whose connections go on under them. */
  async function takeOver(state: State): Promise<State> {
    const read = async (set: string) => {
      const output = await nft.listSet("inet", table, set);
      return output === undefined ? [] : (readListing([output]).sets.get(`inet ${set}`) ?? []);
    };
    for (const { parts, expires = 0 } of await read("learned")) {
      const [policy = "", address = ""] = parts;
      if (state.policies.has(Number(policy)))
        learned.add(Number(policy), [{ address, ttlMs: expires * 1_000 }]);
    }
    const heirs = await read("heirs");
    return inherited(
      state,
      heirs.map(({ parts: [ancestor, heir] }) => [Number(ancestor), Number(heir)]),
    );
  }

  /** Compares what the kernel has with what it should have, and puts that there. Does not fail. */
  function verify(): Promise<void> {
    if (isClosed) return Promise.resolve();
    // one that waits for its turn sees whatever it is called for
    verifying ??= transactions.inTurn(async () => {
      verifying = undefined;
      if (!isClosed) await look();
    });
    return verifying;
  }

  async function look(): Promise<void> {
    try {
      if (!transactions.isInstalled()) {
        if (isProbed && problem() === undefined) return;
        await nft.check(wholeTables(noState, tables));
        isProbed = true;
        tell({ tables: undefined });
        return;
      }
      await compare();
      tell({ tables: undefined });
    } catch (error) {
      tell({ tables: nftProblem(error) });
      if (transactions.isInstalled()) again();
    }
    if (transactions.isInstalled() && !isClosed) void ensureFence();
  }

  /** Beside changes: it may have to wait for what another daemon is about to do. Does not fail. */
  function ensureFence(): Promise<void> {
    fencing ??= mendFence().finally(() => {
      fencing = undefined;
    });
    return fencing;
  }

  async function compare(): Promise<void> {
    const wrong = await difference();
    if (wrong === undefined) return;
    tell({ tables: `another program changed the rules of networks (${wrong}); they are being put back` });
    await transactions.replace();
    structure = undefined;
    const still = await difference();
    if (still !== undefined) throw new Error(`${still}, right after they were put back`);
  }

  async function difference(): Promise<string | undefined> {
    const [inet, bridge] = await Promise.all([nft.listTable("inet", table), nft.listTable("bridge", table)]);
    if (inet === undefined || bridge === undefined) return "the tables are gone";
    const listing = readListing([inet, bridge]);
    const wrong = firstDifference(listing, transactions.state(), pools, structure);
    if (wrong === undefined) structure ??= listing.structure;
    return wrong;
  }

  async function mendFence(): Promise<void> {
    try {
      if (await fence.ensure()) log.info({}, "the routing rules that hold sandboxes back were put in place");
      tell({ fence: undefined });
    } catch (error) {
      tell({ fence: fenceProblem(error) });
      again();
    }
  }

  function again(): void {
    clearTimeout(retry);
    if (!isClosed) retry = setTimeout(() => void verify(), retryMs);
  }

  async function count(): Promise<void> {
    if (!transactions.isInstalled() || transactions.state().sandboxes.size === 0) return;
    try {
      for (const family of ["inet", "bridge"] as const) {
        const read = async (set: string) => {
          const output = await nft.listSet(family, table, set);
          return output === undefined ? [] : (readListing([output]).sets.get(`${family} ${set}`) ?? []);
        };
        const hasRisen = counts.count(family, await read("denied"));
        if (!hasRisen) continue;
        for (const sample of counts.sample(family, await read("tried")))
          for (const listener of deniedListeners) listener(sample);
      }
    } catch (error) {
      log.debug({ err: messageOf(error) }, "what was refused could not be counted");
    }
  }

  const timers = [setInterval(() => void verify(), verifyEveryMs)];
  let counting: Promise<void> = Promise.resolve();
  timers.push(
    setInterval(() => {
      counting = counting.then(count);
    }, countEveryMs),
  );
  void verify();

  return {
    problem,
    change: transactions.change,
    learn: transactions.learn,
    denials: counts.all,
    onDenied(listener) {
      deniedListeners.add(listener);
      return () => void deniedListeners.delete(listener);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async close() {
      isClosed = true;
      for (const timer of timers) clearInterval(timer);
      clearTimeout(retry);
      monitor?.close();
      await counting;
      await transactions.settled();
      await fencing;
    },
  };
}
