// Changes on their way into the kernel: those that wait together are one transaction, and one that the kernel does not take leaves
// everything as it was.

import { randomBytes } from "node:crypto";
import { messageOf } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import { difference } from "./elements.ts";
import { type KernelAddress, type Learned, type LearnedAddress, learnedText } from "./learned.ts";
import type { Monitor } from "./monitor.ts";
import { type Nft, unavailable } from "./nft.ts";
import type { FirewallChange } from "./rules.ts";
import { signal, type TableOptions, transition, wholeTables } from "./ruleset.ts";
import { type Draft, draftOf, noState, type State } from "./state.ts";

export interface Transactions {
  /** What the kernel holds, unless somebody else touched it. */
  state(): State;
  /** Whether the tables were put there in this life. */
  isInstalled(): boolean;
  change(change: FirewallChange): Promise<void>;
  learn(sandboxId: string, addresses: readonly LearnedAddress[]): Promise<void>;
  /** Puts both tables there anew. Only within a turn. */
  replace(): Promise<void>;
  /** Does a job while no transaction is under way. */
  inTurn<T>(job: () => Promise<T>): Promise<T>;
  /** Resolves once nothing is under way. */
  settled(): Promise<void>;
}

export interface TransactionsOptions extends TableOptions {
  readonly nft: Nft;
  readonly learned: Learned;
  /** Called right before the tables are put there for the first time: brings what an earlier life of the daemon left. */
  readonly takeOver: (state: State) => Promise<State>;
  /** The kernel holds another state. */
  readonly onChanged: (before: State, after: State) => void;
  readonly monitor: () => Monitor | undefined;
  readonly log: Log;
}

interface Request {
  /** Adds it to a draft, and returns the addresses that were learned. */
  readonly add: (draft: Draft) => readonly KernelAddress[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export function createTransactions(options: TransactionsOptions): Transactions {
  const { nft, learned, table, log } = options;
  let state = noState;
  let isInstalled = false;
  const waiting: Request[] = [];
  let turn: Promise<unknown> = Promise.resolve();
  /** Of a program whose work is done. */
  let ending: Promise<unknown> = Promise.resolve();

  function inTurn<T>(job: () => Promise<T>): Promise<T> {
    const done = turn.then(job);
    turn = done.catch(() => undefined);
    return done;
  }

  function ask(add: Request["add"]): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    waiting.push({ add, resolve, reject });
    if (waiting.length === 1) void inTurn(() => carryOut(waiting.splice(0)));
    return promise;
  }

  async function carryOut(requests: readonly Request[]): Promise<void> {
    const { taken, next, addresses } = combine(requests);
    try {
      await write(next, addresses);
    } catch (error) {
      learned.forget(addresses);
      // the one that it is because of is not to take the others with it
      if (taken.length > 1) for (const request of taken) await carryOut([request]);
      else taken[0]?.reject(unavailable(error));
      return;
    }
    for (const { resolve } of taken) resolve();
  }

  /** All of them, one after the other, without those that cannot be. */
  function combine(requests: readonly Request[]) {
    const taken: Request[] = [];
    const addresses: KernelAddress[] = [];
    const draft = draftOf(state);
    for (const request of requests) {
      try {
        addresses.push(...request.add(draft));
        taken.push(request);
      } catch (error) {
        request.reject(error);
      }
    }
    const next = draft.state();
    addresses.push(...learned.follow(state, next));
    return { taken, next, addresses };
  }

  async function write(asked: State, addresses: readonly KernelAddress[]): Promise<void> {
    const before = state;
    const after = isInstalled ? asked : await options.takeOver(asked);
    const inKernel = addresses.filter(({ policy }) => after.policies.has(policy));
    if (!isInstalled) {
      await nft.apply(wholeTables(after, options) + learnedText(learned.all(), table));
      isInstalled = true;
    } else {
      try {
        await writeDifference(before, after, inKernel);
      } catch (error) {
        // what is there may not be what was left there
        log.warn({ err: messageOf(error) }, "the firewall did not take a change; putting it there anew");
        await nft.apply(wholeTables(after, options) + learnedText(learned.all(), table));
      }
    }
    state = after;
    learned.retain(after);
    options.onChanged(before, after);
  }

  async function writeDifference(
    before: State,
    after: State,
    addresses: readonly KernelAddress[],
  ): Promise<void> {
    const changes = difference(before, after);
    const script = transition(changes, table) + learnedText(addresses, table);
    if (script === "") return;
    const monitor = options.monitor();
    const takesAway = changes.gone.length > 0 || addresses.length > 0;
    if (monitor === undefined || !monitor.isUp() || !takesAway) return nft.apply(script);
    const token = randomBytes(8).toString("hex");
    const [heard, done] = [monitor.heard(token), nft.apply(script + signal(table, token))];
    // a program that takes something away ends only once no processor can see that any more, 10 to 20 ms later
    ending = done.catch(() => undefined).finally(() => monitor.forget(token));
    await Promise.race([heard, done]);
  }

  return {
    state: () => state,
    isInstalled: () => isInstalled,
    inTurn,
    async settled() {
      await turn;
      await ending;
    },
    change: (change) =>
      ask((draft) => {
        draft.add(change);
        return [];
      }),
    learn: (sandboxId, addresses) =>
      ask((draft) => {
        const policy = draft.policyOf(sandboxId);
        const isAsked = policy !== undefined && policy.policy.domains.length > 0;
        return isAsked ? learned.add(policy.number, addresses) : [];
      }),
    replace: () => nft.apply(wholeTables(state, options) + learnedText(learned.all(), table)),
  };
}
