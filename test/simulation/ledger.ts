// What must be true, checked as it happens: the ledger knows what callers asked and were told, what chance and people on the
// host did, and holds every commit of the daemon and every call to the engine against it.

import type { EngineEvent } from "../../src/engine/runtime.ts";
import type { SandboxdError } from "../../src/errors.ts";
import { promised } from "../../src/sandbox/admission.ts";
import type { Clock } from "../../src/sandbox/clock.ts";
import { holdsCapacity, isToLive, type SandboxRecord } from "../../src/sandbox/record.ts";
import { type Books, createBooks } from "./books.ts";
import { causeProblem } from "./causes.ts";
import type { Commit } from "./model-disk.ts";
import { type Doer, isLive, type ModelContainer, type ModelEngine } from "./model-engine.ts";
import { capacity, concurrentStarts, labels } from "./model-host.ts";
import type { Asked } from "./model-runtime.ts";
import type { Action } from "./schedule.ts";
import type { Story } from "./story.ts";
import { createTenancy, type Tenancy } from "./tenancy.ts";

/** One call of a caller. */
export interface Call {
  readonly number: number;
  readonly action: Extract<Action, { readonly id: string }>;
  readonly story: Story | undefined;
  /** What the caller sends as the generation. */
  readonly generation?: number;
  gaveUpAtMs?: number;
  isOver: boolean;
}

export interface Ledger {
  readonly books: Books;
  /** Of the daemon's present life. */
  clock: Clock | undefined;
  hasDrained: boolean;
  readonly tenancy: Tenancy;
  committed(commit: Commit): void;
  asked(asked: Asked): void;
  answered(asked: Asked, error: SandboxdError | undefined): void;
  delivered(event: EngineEvent): void;
  changed(container: ModelContainer, what: string, by: Doer): void;
  starts(container: ModelContainer, by: Doer): void;
  died(): void;
  /** Events up to this one were told to who listens. */
  told(sequence: number): void;
  powerLost(left: readonly Commit[]): void;
  stateLost(): void;
  rebooted(): void;
  called(call: Call): void;
  returned(call: Call, record: SandboxRecord | undefined): void;
  failed(call: Call): void;
  /** After each thing that happened. */
  look(nowMs: number): void;
}

export interface LedgerOptions {
  readonly engine: ModelEngine;
  readonly nowMs: () => number;
  readonly boot: () => string;
  /** The first violation ends the schedule. */
  readonly violated: (message: string) => void;
  /** Whether no fault is part of the schedule. */
  readonly isCalm: boolean;
  /** Whether the engine may do things long after they were asked for. */
  readonly isLate: boolean;
  readonly isWallSet: boolean;
  /** The longest that a commit takes to last. */
  readonly diskSlownessMs: number;
  /** Whether every commit lasts at once, or nearly so. */
  readonly isDiskGood: boolean;
  readonly isIdle: (id: string) => boolean;
  readonly wasIll: (id: string) => boolean;
}

/** With some slack for what was not written yet. */
const keptEveryMs = 70_000;

const changing = new Set(["start", "stop", "remove", "pause", "resume", "update"]);
const starting = new Set(["create", "start"]);

export function createLedger(options: LedgerOptions): Ledger {
  const { engine, violated } = options;
  const books = createBooks(violated);
  const tenancy = createTenancy(violated);
  const pending = new Set<Call>();
  const inFlight = new Set<Asked>();
  /** The latest steady time that was. */
  let newestMs = 0;
  /** Of each boot, steady time less true time. */
  const boots = new Map<string, number>();
  let toldSequence = 0;

  const isStarting = (id: string) =>
    [...pending].some(({ action }) => action.do === "start" && action.id === id);
  const storyOf = (container: ModelContainer | undefined) => {
    const identity = container === undefined ? undefined : labels.decode(container.labels);
    return identity === undefined ? undefined : books.story(identity.instance);
  };
  const containersOf = (story: Story) =>
    [...engine.containers.values()].filter((container) => storyOf(container) === story);
  const steadyMs = () => ledger.clock?.nowMs() ?? 0;

  function changedTo(story: Story, before: SandboxRecord, next: SandboxRecord, type: string): void {
    const problem = causeProblem(story, before, next, type, {
      engine,
      steadyMs: steadyMs(),
      nowMs: options.nowMs(),
      hasDrained: ledger.hasDrained,
      isTenantToGo: tenancy.isDeletionAsked,
      isCalm: options.isCalm,
      isLate: options.isLate,
      isWallSet: options.isWallSet,
      isIdle: options.isIdle(next.id),
      wasIll: options.wasIll(next.id),
    });
    if (problem !== undefined) violated(problem);
  }

  function admitted(record: SandboxRecord, before: SandboxRecord | undefined): void {
    const isAdmission =
      before === undefined ||
      (!holdsCapacity(before) && isToLive(record)) ||
      (before.spec.resources !== record.spec.resources &&
        isToLive(record) &&
        JSON.stringify(before.spec.resources) !== JSON.stringify(record.spec.resources));
    if (!isAdmission || record.transition.reason === "ADOPTED") return;
    // what an update asks for was admitted when it began
    if (before === undefined || !holdsCapacity(before)) tenancy.admitted(record, books.records());
    const { requests, limits } = promised(books.records());
    const { allocatable } = capacity;
    if (
      limits.memoryBytes > allocatable.memoryBytes ||
      limits.cpuMillis > allocatable.cpuMillis ||
      limits.pids > allocatable.pids ||
      requests.sandboxes > allocatable.sandboxes
    ) {
      violated(
        `I4: ${record.id} was admitted beyond what is allocatable: ${JSON.stringify(limits)} of ${JSON.stringify(allocatable)}`,
      );
    }
  }

  const ledger: Ledger = {
    books,
    clock: undefined,
    hasDrained: false,
    tenancy,
    committed(commit) {
      tenancy.keep(commit, books.records());
      for (const { story, before, record, type } of books.keep(commit, steadyMs())) {
        if (before !== undefined) changedTo(story, before, record, type);
        if (type !== "SANDBOX_DELETED") admitted(record, before);
      }
    },
    asked(asked) {
      const { verb, container } = asked;
      if (starting.has(verb)) {
        inFlight.add(asked);
        const count = inFlight.size;
        if (count > concurrentStarts) violated(`${count} starts at once; ${concurrentStarts} are allowed`);
      }
      if (verb === "create" && asked.plan !== undefined) {
        const identity = labels.decode(asked.plan.labels);
        const story = identity === undefined ? undefined : books.story(identity.instance);
        const record = story === undefined ? undefined : books.record(story.id);
        if (story === undefined || record?.instance !== story.instance) {
          return violated("I1: a container was created for a sandbox that is not in the state");
        }
        if (!books.isDurable(story.instance)) {
          return violated(`I6: ${story.id} is created before its intent is on disk`);
        }
        if (record.imageId !== asked.plan.imageId) {
          return violated(`I1: ${story.id} is created before its image is in the state`);
        }
      }
      if (container === undefined || !changing.has(verb)) return;
      if (labels.decode(container.labels) === undefined) {
        return violated(`I7: ${verb} of ${container.id}, which is not this host's`);
      }
      const story = storyOf(container);
      if (story === undefined) {
        return violated(`I2: ${verb} of ${container.id}, of which the state knows nothing`);
      }
      const record = books.record(story.id);
      const isCurrent = record?.instance === story.instance;
      if (!isCurrent && !(verb === "remove" && books.isTombstone(story.instance))) {
        return violated(`I2: ${verb} of a container whose sandbox is not in the state and was not deleted`);
      }
      if (!isCurrent) return;
      if (verb === "start") mayStart(story, record);
      if (!isLive(container)) return;
      const isToEnd =
        record.wanted === "STOPPED" || record.wanted === "DELETED" || record.state === "STOPPING";
      if (verb === "stop" && !isToEnd) {
        violated(`I2: ${story.id} is stopped although it is wanted ${record.wanted}, and ${record.state}`);
      }
      if (verb === "remove" && record.wanted !== "DELETED") {
        const wasTold = ["RUNNING", "PAUSED", "PAUSING", "RESUMING"].includes(record.state);
        if (wasTold && container.limitsHold) {
          violated(`I2: ${story.id}, which runs, is removed although it is wanted ${record.wanted}`);
        } else if (story.refusals === 0) {
          violated(`I2: ${story.id} is removed although nothing was wrong with it`);
        }
      }
    },
    answered(asked, error) {
      inFlight.delete(asked);
      if (error === undefined) return;
      const identity = asked.plan === undefined ? undefined : labels.decode(asked.plan.labels);
      const story = storyOf(asked.container) ?? (identity && books.story(identity.instance));
      if (story !== undefined && asked.verb === "update") story.isUpdateCut = true;
      if (story !== undefined) story.refusals++;
      else for (const one of books.stories()) one.refusals++;
    },
    delivered({ containerId, action }) {
      if (action !== "kill") return;
      const container = engine.containers.get(containerId);
      const story = storyOf(container);
      if (container?.endedBy !== "external" || story === undefined) return;
      if (story.knownExternal?.startedAt === container.startedAt) return;
      story.knownExternal = { startedAt: container.startedAt, atMs: options.nowMs() };
    },
    changed(container, what, by) {
      const story = storyOf(container);
      if (story === undefined) {
        // it has, or had, the name that a sandbox needs
        for (const one of books.stories()) one.refusals++;
        return;
      }
      if (by !== "daemon" && by !== "itself") story.touches++;
      if (what.startsWith("ended")) story.ends++;
      if (container.initFailed) story.refusals++;
      if (what !== "created") return;
      const { length } = containersOf(story);
      if (length > 1) violated(`I3: ${story.id} has ${length} containers`);
    },
    starts(container, by) {
      const story = storyOf(container);
      if (story !== undefined && by !== "daemon") story.touches++;
    },
    died() {
      inFlight.clear();
      for (const { action, story } of pending) {
        if (action.do === "update" && story !== undefined) story.isUpdateCut = true;
      }
      // who ended what, dies with it
      for (const story of books.stories()) story.knownExternal = undefined;
      ledger.clock = undefined;
      for (const call of pending) call.isOver = true;
      pending.clear();
    },
    told(sequence) {
      toldSequence = sequence;
    },
    powerLost(left) {
      books.rebuild(left);
      tenancy.rebuild(left);
      if (books.newestEvent() < toldSequence) {
        violated(`I5: event ${toldSequence} was told, and a loss of power took it`);
      }
    },
    stateLost() {
      books.forget();
      tenancy.rebuild([]);
      toldSequence = 0;
      newestMs = 0;
      ledger.hasDrained = false;
    },
    rebooted() {
      for (const story of books.stories()) story.reboots++;
    },
    called(call) {
      pending.add(call);
      const { story, action } = call;
      if (action.do === "create") books.wished(action.id, action.wish);
      if (story === undefined) return;
      story.asked.add(action.do);
      if (action.do === "start") story.isStopAcknowledged = false;
      if (action.do === "renew" && call.generation !== undefined) {
        story.renewals.push({ generation: call.generation, ttlMs: action.ttlMs });
      }
    },
    returned(call, record) {
      call.isOver = true;
      pending.delete(call);
      const { action } = call;
      const story = record === undefined ? call.story : books.story(record.instance);
      if (story === undefined) return;
      switch (action.do) {
        case "create":
          story.isCreateAcknowledged = true;
          return;
        case "delete":
          if (books.record(story.id)?.instance === story.instance) {
            violated(`I6: delete of ${story.id} was answered, and it is still there`);
          }
          story.isDeleteAcknowledged = true;
          if (!options.isLate && containersOf(story).length > 0) {
            violated(`I6: delete of ${story.id} was answered, and its container is still there`);
          }
          return;
        case "pause": {
          const [container] = containersOf(story);
          const isUndisturbed = story.touches === 0 && story.reboots === 0;
          if (record?.state === "PAUSED" && isUndisturbed && container?.state !== "paused") {
            violated(`I6: pause of ${story.id} was answered, and its container is ${container?.state}`);
          }
          return;
        }
        case "update":
          story.updatedTo = Math.max(story.updatedTo, record?.generation ?? 0);
          return;
        case "stop":
          if (record?.state !== "STOPPED" && record?.state !== "FAILED") {
            violated(`I6: stop of ${story.id} was answered with ${record?.state}`);
          }
          // one that was overtaken by a start says nothing of what is now
          if (books.record(story.id)?.wanted === "STOPPED" && !isStarting(story.id)) {
            story.isStopAcknowledged = true;
          }
          return;
        case "renew":
          if (record !== undefined && record.generation > (story.lease?.generation ?? 0)) {
            story.lease = { generation: record.generation, expiresAtMs: record.expiresAtMs };
          }
          return;
        default:
          return;
      }
    },
    failed(call) {
      call.isOver = true;
      pending.delete(call);
    },
    look(nowMs) {
      if (ledger.clock !== undefined) steady(ledger.clock, nowMs);
      for (const { number, action, gaveUpAtMs } of pending) {
        // an update waits for its turn, and its caller's deadline is kept by the API
        if (gaveUpAtMs === undefined || action.do === "update") continue;
        // what is to last waits for the disk
        if (nowMs <= gaveUpAtMs + options.diskSlownessMs) continue;
        violated(
          `I9: call ${number}, ${action.do} ${action.id}, is not answered although its caller gave up`,
        );
      }
      const problem = books.acknowledged();
      if (problem !== undefined) violated(problem);
    },
  };

  /** Within a boot it goes with the true time, whatever the wall clock does. */
  function steady(clock: Clock, nowMs: number): void {
    const boot = options.boot();
    const offsetMs = clock.nowMs() - nowMs;
    const known = boots.get(boot);
    boots.set(boot, known ?? offsetMs);
    if (known === undefined && options.isDiskGood && clock.nowMs() < newestMs - keptEveryMs) {
      violated(`the clock went back by ${Math.round(newestMs - clock.nowMs())} ms with a new boot`);
    }
    newestMs = Math.max(newestMs, clock.nowMs());
    if (known !== undefined && Math.abs(offsetMs - known) > 2) {
      violated(`the clock jumped by ${Math.round(offsetMs - known)} ms within a boot`);
    }
  }

  function mayStart(story: Story, record: SandboxRecord): void {
    if (record.wanted !== "RUNNING") {
      violated(`I6: ${story.id} is started although it is wanted ${record.wanted}`);
    }
    if (story.isStopAcknowledged) violated(`I6: ${story.id} is started after a stop that was acknowledged`);
    const { backoff } = story;
    if (backoff !== undefined && steadyMs() < backoff.notBeforeMs) {
      violated(
        `${story.id} is started ${Math.round(backoff.notBeforeMs - steadyMs())} ms sooner than its restart policy allows`,
      );
    }
  }

  return ledger;
}
