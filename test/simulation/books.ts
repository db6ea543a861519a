// The state as its commits tell it, and the events: ordered, unique, complete, each in the transaction of what it tells.

import type { SandboxRecord } from "../../src/sandbox/record.ts";
import type { EventDocument } from "../../src/sandbox/repository.ts";
import type { Commit } from "./model-disk.ts";
import type { Wish } from "./model-host.ts";
import { type Story, storyOf } from "./story.ts";

export interface Change {
  readonly story: Story;
  readonly before: SandboxRecord | undefined;
  readonly record: SandboxRecord;
  readonly type: string;
}

export interface Books {
  record(id: string): SandboxRecord | undefined;
  records(): readonly SandboxRecord[];
  story(instance: string): Story | undefined;
  stories(): Iterable<Story>;
  isTombstone(instance: string): boolean;
  /** Whether a loss of power leaves this sandbox. */
  isDurable(instance: string): boolean;
  newestEvent(): number;
  /** Says where to look for that. */
  durableBy(count: () => number): void;
  /** What the next sandbox of this id was asked to be. */
  wished(id: string, wish: Wish): void;
  keep(commit: Commit, steadyMs: number): readonly Change[];
  rebuild(commits: readonly Commit[]): void;
  /** The state is lost, and with it all that was acknowledged. */
  forget(): void;
  /** What an acknowledgement promised and the state does not keep. */
  acknowledged(): string | undefined;
}

export function createBooks(violated: (message: string) => void): Books {
  let records = new Map<string, SandboxRecord>();
  let tombstones = new Set<string>();
  let newest = 0;
  let commits = 0;
  let isChanged = false;
  let durableCount = () => 0;
  const stories = new Map<string, Story>();
  /** Commits after which a sandbox is in the state. */
  let insertedBy = new Map<string, number>();
  const wishes = new Map<string, Wish>();
  /** What each instance was asked to be; outlives the state, as labels do. */
  const born = new Map<string, Wish>();

  function paired(commit: Commit): void {
    for (const { id, document } of commit.puts) {
      const events = commit.events.filter((event) => event.document.endsWith(`"sandbox":${document}}`));
      if (events.length !== 1) {
        violated(`I5: a change of ${id} was written with ${events.length} events that tell it`);
      }
    }
    if (commit.removals.length !== commit.tombstones.length) violated("I1: removed without a tombstone");
    if (commit.removals.length > commit.events.length) violated("I5: removed without an event");
    for (const { sequence } of commit.events) {
      if (sequence !== newest + 1) violated(`I5: event ${sequence} follows ${newest}`);
      newest = sequence;
    }
  }

  function told(type: string, record: SandboxRecord, before: SandboxRecord | undefined): void {
    const { transition, id } = record;
    if (record.state === "RUNNING" && record.imageId === "") violated(`${id} runs of an unknown image`);
    const from = before?.state;
    switch (type) {
      case "SANDBOX_CREATED":
        if (before !== undefined) violated(`I5: ${id} was created twice`);
        return;
      case "SANDBOX_STATE_CHANGED":
      case "SANDBOX_DELETED":
        if (transition.from !== from || transition.to !== record.state) {
          violated(`I5: ${id} went from ${from}; its event tells ${transition.from} to ${transition.to}`);
        }
        // the way is the same, for another reason or after another run
        if (
          transition.from === transition.to &&
          before?.wanted === record.wanted &&
          before.endedRun === record.endedRun &&
          transition.reason !== "ADOPTED"
        ) {
          violated(`I5: ${id} is told to have gone from ${transition.from} to ${transition.to}`);
        }
        return;
      default:
        if (record.state !== from) violated(`I5: ${id} went from ${from} to ${record.state} by ${type}`);
    }
  }

  function apply({ puts, removals, tombstones: dead }: Commit): void {
    commits++;
    for (const { id, document } of puts) {
      const record = JSON.parse(document) as SandboxRecord;
      if (records.get(id)?.instance !== record.instance) insertedBy.set(record.instance, commits);
      records.set(id, record);
    }
    for (const id of removals) records.delete(id);
    for (const instance of dead) tombstones.add(instance);
    isChanged = true;
  }

  function rebuild(left: readonly Commit[]): void {
    records = new Map();
    tombstones = new Set();
    insertedBy = new Map();
    commits = 0;
    newest = 0;
    for (const commit of left) {
      apply(commit);
      newest = commit.events.at(-1)?.sequence ?? newest;
    }
    // what nobody was told of never happened
    for (const story of stories.values()) {
      const record = records.get(story.id);
      if (record?.instance !== story.instance) continue;
      story.expiresAtMs = record.expiresAtMs;
      story.warnedOfMs = record.warnedOfMs === undefined ? [] : [record.warnedOfMs];
      story.backoffs = record.restarts?.recentMs ?? [];
      story.backoff = undefined;
      story.lastRun = "";
      story.isToGo = record.wanted === "DELETED";
    }
  }

  return {
    record: (id) => records.get(id),
    records: () => [...records.values()],
    story: (instance) => stories.get(instance),
    stories: () => stories.values(),
    isTombstone: (instance) => tombstones.has(instance),
    isDurable: (instance) => (insertedBy.get(instance) ?? Number.POSITIVE_INFINITY) <= durableCount(),
    newestEvent: () => newest,
    durableBy(count) {
      durableCount = count;
    },
    wished: (id, wish) => void wishes.set(id, wish),
    keep(commit, steadyMs) {
      if (commit.events.length > 0 || commit.puts.length > 0 || commit.removals.length > 0) paired(commit);
      const changes: Change[] = [];
      for (const { document } of commit.events) {
        const event = JSON.parse(document) as EventDocument;
        if (!("sandbox" in event)) continue;
        const record = event.sandbox;
        const before = records.get(record.id);
        told(event.type, record, before);
        const isRebuilt = event.type === "SANDBOX_CREATED" && record.transition.reason === "ADOPTED";
        let story = stories.get(record.instance);
        if (story === undefined) {
          const wish = born.get(record.instance) ?? wishes.get(record.id);
          if (wish === undefined) {
            violated(`${record.id} appeared although nobody asked for it`);
            continue;
          }
          born.set(record.instance, wish);
          story = storyOf(record.id, record.instance, wish, isRebuilt ? record.createdAtMs : steadyMs);
          stories.set(record.instance, story);
        }
        if (isRebuilt) adopted(story, steadyMs);
        changes.push({ story, before, record, type: event.type });
      }
      apply(commit);
      return changes;
    },
    rebuild,
    forget() {
      rebuild([]);
      stories.clear();
    },
    acknowledged() {
      if (!isChanged) return undefined;
      isChanged = false;
      for (const story of stories.values()) {
        const record = records.get(story.id);
        const isThere = record?.instance === story.instance;
        if (story.isCreateAcknowledged && !story.isToGo && !isThere) {
          return `I6: ${story.id} was acknowledged and is not there`;
        }
        if (story.isDeleteAcknowledged && isThere && record.wanted !== "DELETED") {
          return `I6: ${story.id} was acknowledged as deleted and is there`;
        }
        if (!isThere) continue;
        if (story.isStopAcknowledged && (record.wanted === "RUNNING" || record.wanted === "PAUSED")) {
          return `I6: ${story.id} was acknowledged as stopped and is wanted ${record.wanted}`;
        }
        if (record.generation < story.updatedTo) {
          return `I6: the acknowledged update of ${story.id} is lost`;
        }
        const { lease } = story;
        if (lease === undefined || record.wanted === "DELETED") continue;
        const isLost = record.generation < lease.generation;
        if (isLost || (story.expiresAtMs === lease.expiresAtMs && record.expiresAtMs !== lease.expiresAtMs)) {
          return `I6: the acknowledged renewal of ${story.id} is lost`;
        }
      }
      return undefined;
    },
  };
}

/** What happened before is not known: anything may have. */
function adopted(story: Story, nowMs: number): void {
  const { ttlMs } = story.wish.life.lifetime ?? {};
  story.expiresAtMs = ttlMs === undefined ? undefined : nowMs + ttlMs;
  story.touches = 1;
  story.reboots = 1;
  story.ends = 1;
  story.refusals = 1;
}
