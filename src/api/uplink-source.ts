// What the uplink tells the scheduler, in the contract's messages, and the two numbers it keeps.

import type { Clock } from "../sandbox/clock.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { UplinkSource } from "../scheduler/source.ts";
import type { Store } from "../store/store.ts";
import { eventOf } from "./event-codec.ts";
import { type HostView, hostOf } from "./host-codec.ts";
import type { NetworkView } from "./network-codec.ts";
import type { Terms } from "./ports.ts";
import { sandboxOf } from "./sandbox-codec.ts";
import type { StatsFeed } from "./stats-feed.ts";

const termKey = "term";
const acknowledgedKey = "acknowledged";

/** The fence: the newest term seen, kept with the state. */
export function createTerms(store: Store): Terms {
  let newest = Number(store.meta(termKey) ?? 0);
  return {
    newest: () => newest,
    accept(term) {
      if (term < newest) return false;
      if (term > newest) {
        store.transact((transaction) => transaction.setMeta(termKey, String(term)));
        newest = term;
      }
      return true;
    },
  };
}

export interface UplinkSourceOptions {
  readonly store: Store;
  readonly repository: Repository;
  readonly view: HostView;
  readonly feed: StatsFeed;
  readonly terms: Terms;
  /** What is seen of a sandbox's network now; undefined without one. */
  readonly network: (record: SandboxRecord) => NetworkView | undefined;
}

export function createUplinkSource({
  store,
  repository,
  view,
  feed,
  terms,
  network,
}: UplinkSourceOptions): UplinkSource {
  const { host, clock } = view;
  let acknowledged = Number(store.meta(acknowledgedKey) ?? 0);
  return {
    host: () => hostOf(view),
    snapshot() {
      const sandboxes = encoded(repository.all(), clock, network);
      return { sequence: store.events.newest(), sandboxes };
    },
    events: {
      readAfter: (sequence, limit) =>
        store.events.readAfter(sequence, limit).map((stored) => eventOf(stored, clock)),
      newest: () => store.events.newest(),
      subscribe: (listener) => store.events.subscribe(listener),
    },
    lastAcknowledgedSequence: () => acknowledged,
    acknowledge(sequence) {
      if (sequence <= acknowledged) return;
      store.transact((transaction) => transaction.setMeta(acknowledgedKey, String(sequence)));
      acknowledged = sequence;
    },
    term: () => terms.newest(),
    acceptTerm: (term) => terms.accept(term),
    stats: () => feed.batch(),
    // samples are taken at the configured period; the scheduler's says how often the newest is sent
    setStatsPeriod: () => undefined,
    running: () => repository.all().filter((record) => record.state === "RUNNING").length,
    subscribeHost: (listener) => host.subscribe(listener),
  };
}

/** Encodes one at a time, so that a large snapshot never stands in memory whole. */
function* encoded(records: readonly SandboxRecord[], clock: Clock, network: UplinkSourceOptions["network"]) {
  for (const record of records) yield sandboxOf(record, clock, network(record));
}
