// One process as the daemon holds it: its keeper's connection, which is made again when it breaks, its output, its streams, its
// input, and its end, which is on disk before anybody is told.

import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { Connection } from "../toolbox/connection.ts";
import { garbled } from "../toolbox/protocol.ts";
import { orAborted } from "../waiting.ts";
import { createAcknowledgement } from "./acknowledgement.ts";
import { dismiss, exitOf, lostExit, sandboxExit } from "./exits.ts";
import { createInput, type Input } from "./input.ts";
import { ask, type KeeperStatus, type SignalScope, wordOf } from "./keeper.ts";
import { createOutputRing, type OutputBudget } from "./output-ring.ts";
import type { Due, Pulse } from "./pulse.ts";
import type { ProcessExit, ProcessRecord, ProcessState, ProcessView, TerminalSize } from "./record.ts";
import { errnoName, inputClosed, processEnded } from "./refusals.ts";
import { createWatcher, type Told, type Watched, type Watcher } from "./watcher.ts";

/** What became of a keeper that the connection broke to: `later` is to be asked again. */
export type Search = Connection | "sandbox-ended" | "lost" | "later";

export interface HeldOptions {
  readonly record: ProcessRecord;
  /** Whether input can be sent to it. */
  readonly hasInput: boolean;
  readonly clock: Pick<Clock, "nowMs">;
  readonly pulse: Pulse;
  readonly budget: OutputBudget;
  /** Time to connect again, after the last stream of a process that is to be ended then. */
  readonly disconnectGraceMs: number;
  /** Looks for the keeper again. */
  readonly search: (record: ProcessRecord, signal: AbortSignal) => Promise<Search>;
  /** Resolves once the record, as it is now, is on disk. */
  readonly keep: (record: ProcessRecord) => Promise<void>;
  /** Out-of-memory kills that the sandbox has seen; undefined if it is not known. */
  readonly oomKills: () => number | undefined;
  /** It has ended, and that was told. */
  readonly onEnd: (held: HeldProcess) => void;
  /** It was accepted and never started: the daemon was killed in between. */
  readonly onNothing: (held: HeldProcess) => void;
  readonly log: Log;
}

export interface WatchRequest {
  readonly afterSequence: number;
  readonly keepaliveMs: number;
  readonly signal: AbortSignal;
}

export interface HeldProcess {
  readonly record: ProcessRecord;
  readonly input: Input;
  view(): ProcessView;
  hasEnded(): boolean;
  isKnown(): boolean;
  /** Resolves once its keeper has told where it is, or it has ended. */
  known(signal: AbortSignal): Promise<void>;
  /** Resolves while its keeper can be spoken to. @throws SandboxdError INVALID_STATE once it has ended. */
  reached(signal: AbortSignal): Promise<void>;
  /** A stream from now on. @throws SandboxdError SEQUENCE_TRUNCATED. */
  watch(request: WatchRequest): AsyncIterable<Told>;
  /** Of one that is reached. */
  resize(size: TerminalSize, repaints: boolean): void;
  signal(signal: number, scope: SignalScope): void;
  /** It runs behind this connection, which has told its status. */
  begin(connection: Connection, status: KeeperStatus): void;
  /** It runs, as far as is known, and is looked for. */
  resume(): void;
  /** Its sandbox has ended. Ended already is success. */
  sandboxEnded(): void;
  /** Lets go of it, as the daemon does when it stops. The process goes on. */
  close(): void;
}

/** Time for streams to connect again after the daemon was away. */
export const orphanMs = 30_000;
const firstDelayMs = 50;
const mostDelayMs = 5_000;

export function createHeldProcess(options: HeldOptions): HeldProcess {
  const { clock, pulse, log } = options;
  let { record } = options;
  const closing = new AbortController();
  const ring = createOutputRing(ringBytes(record), options.budget);
  const acknowledgement = createAcknowledgement(record.retainedBytes);
  const watchers = new Set<Watcher>();
  let isKnown = false;
  const knowing = Promise.withResolvers<void>();
  let reaching = Promise.withResolvers<void>();
  let connection: Connection | undefined;
  let end: { readonly sequence: number; readonly exit: ProcessExit } | undefined;
  let isEnding = record.exit !== undefined;
  let isToBeEnded = false;

  const input = createInput({
    isOpen: options.hasInput,
    refusal: (why) => (why === "ended" ? processEnded(record) : inputClosed(record)),
  });
  const disconnect: Due = {
    dueMs: Number.POSITIVE_INFINITY,
    due() {
      disconnect.dueMs = Number.POSITIVE_INFINITY;
      if (watchers.size > 0) return;
      isToBeEnded = true;
      say(ask.end(record.killGraceMs));
    },
  };
  if (record.killsOnDisconnect && !isEnding) pulse.add(disconnect);
  if (record.exit !== undefined) {
    ring.restore((record.lastSequence ?? 2) - 1, record.outputBytes ?? 0);
    end = { sequence: record.lastSequence ?? 2, exit: record.exit };
    input.end();
    becomeKnown();
  }

  function say(frame: Buffer): void {
    // how much is on its way is bounded by what each of these words is for
    void connection?.send(frame);
  }

  function wakeAll(): void {
    for (const watcher of watchers) watcher.wake();
  }

  /** What all who are to be waited for have taken. */
  function acknowledge(): void {
    let taken = ring.lastSequence;
    if (record.waits) for (const watcher of watchers) taken = Math.min(taken, watcher.takenSequence);
    const sequence = acknowledgement.upTo(taken, ring.outputBytes);
    if (sequence !== undefined) say(ask.ack(sequence));
  }

  function attached(to: Connection, status: KeeperStatus): void {
    if (status.lastSequence < ring.lastSequence)
      throw garbled(`a process that came to ${status.lastSequence}`);
    connection = to;
    const { pid, startedAtMs } = status;
    // one that has ended meanwhile tells none
    record = { ...record, state: "RUNNING", startedAtMs, ...(pid === 0 ? {} : { pid }) };
    if (ring.lastSequence === 1 && status.oldestSequence > status.lastSequence) {
      // nothing is retained there, and nothing here
      ring.restore(Math.max(1, status.lastSequence), status.outputBytes);
    }
    input.attached((frame) => void to.send(frame), status.inputOffset, status.isInputOpen);
    if (isToBeEnded) say(ask.end(record.killGraceMs));
    becomeKnown();
  }

  function becomeKnown(): void {
    isKnown = true;
    knowing.resolve();
    reaching.resolve();
  }

  function detached(): void {
    if (connection === undefined) return;
    connection = undefined;
    input.detached();
    if (!isEnding) reaching = Promise.withResolvers<void>();
  }

  /** Listens until the connection or the process ends. */
  async function listen(to: Connection): Promise<void> {
    for (;;) {
      const frame = await to.receive();
      if (frame === undefined || isEnding) return;
      const word = wordOf(frame);
      switch (word.kind) {
        case "output":
          if (word.sequence <= ring.lastSequence || word.offset < ring.outputBytes)
            throw garbled(`output ${word.sequence} after ${ring.lastSequence}`);
          ring.append(word);
          acknowledgement.received(word.sequence, ring.outputBytes);
          acknowledge();
          wakeAll();
          break;
        case "exit":
          if (word.exit.sequence <= ring.lastSequence) throw garbled(`an end at ${word.exit.sequence}`);
          await settle(
            "EXITED",
            exitOf(word.exit, { record, oomKills: options.oomKills }),
            word.exit.sequence,
          );
          return;
        case "taken":
          input.taken(word.offset, word.isOpen);
          break;
        case "failed":
          log.debug(
            { ...named(record), reason: errnoName(word.errno), verb: word.operation.slice(0, 32) },
            "what was asked of a process was not done",
          );
          break;
        case "status":
          throw garbled("a second status");
        case "error":
          throw garbled(`${errnoName(word.errno)} of "${word.operation.slice(0, 32)}"`);
      }
    }
  }

  /** Holds on to it until it has ended, over connections that break. */
  async function hold(first: Connection | undefined): Promise<void> {
    let next = first;
    for (let delayMs = firstDelayMs; !isEnding && !closing.signal.aborted; ) {
      try {
        next ??= await found();
        if (next !== undefined) {
          delayMs = firstDelayMs;
          await listen(next);
        }
      } catch (error) {
        if (!closing.signal.aborted)
          log.debug({ ...named(record), err: messageOf(error) }, "a keeper was lost");
      }
      next?.close();
      next = undefined;
      detached();
      if (isEnding) return;
      await sleep(delayMs, undefined, { signal: closing.signal }).catch(() => undefined);
      delayMs = Math.min(mostDelayMs, 2 * delayMs);
    }
  }

  /** Attaches again; undefined if that is to be tried later, or it has ended. */
  async function found(): Promise<Connection | undefined> {
    const search = await options.search(record, closing.signal);
    if (search === "later" || isEnding) return undefined;
    if (search === "sandbox-ended" || search === "lost") {
      if (record.state === "STARTING") {
        isEnding = true;
        becomeKnown();
        options.onNothing(held);
        return undefined;
      }
      await (search === "lost"
        ? settle("LOST", lostExit(record, clock.nowMs()), undefined)
        : settle("EXITED", sandboxExit(record, clock.nowMs()), undefined));
      return undefined;
    }
    try {
      await search.send(ask.attach(ring.lastSequence === 1 ? 0 : ring.lastSequence));
      const frame = await search.receive();
      if (frame === undefined) throw garbled("nothing");
      const word = wordOf(frame);
      if (word.kind !== "status") throw garbled(`${word.kind} instead of a status`);
      if (!isEnding) attached(search, word.status);
      return search;
    } catch (error) {
      search.close();
      throw error;
    }
  }

  /** It has ended: kept, told, and the keeper let go, in this order. */
  async function settle(state: ProcessState, exit: ProcessExit, sequence: number | undefined): Promise<void> {
    if (isEnding) return;
    isEnding = true;
    const lastSequence = sequence ?? ring.lastSequence + 1;
    const { outputBytes } = ring;
    record = { ...record, state, exit, endedAtMs: clock.nowMs(), lastSequence, outputBytes };
    pulse.remove(disconnect);
    const keeper = connection;
    const tell = () => {
      end ??= { sequence: lastSequence, exit };
      input.end();
      becomeKnown();
      wakeAll();
    };
    for (let isFirst = true; !closing.signal.aborted; isFirst = false) {
      try {
        await options.keep(record);
        break;
      } catch (error) {
        // the keeper tells it again to the next daemon as long as it is not let go
        if (isFirst)
          log.warn({ ...named(record), err: messageOf(error) }, "the end of a process could not be kept");
        tell();
        await sleep(mostDelayMs, undefined, { signal: closing.signal }).catch(() => undefined);
      }
    }
    tell();
    options.budget.retire(ring);
    options.onEnd(held);
    if (sequence !== undefined && keeper !== undefined && !closing.signal.aborted) await dismiss(keeper);
  }

  const view = (): ProcessView => ({
    record,
    pid: isEnding ? 0 : (record.pid ?? 0),
    isInputOpen: !isEnding && input.isOpen,
    inputOffset: input.takenBytes,
    lastSequence: end?.sequence ?? ring.lastSequence,
    firstRetainedSequence: ring.heldBytes === ring.outputBytes ? 1 : ring.firstSequence,
    outputBytes: ring.outputBytes,
    droppedBytes: ring.outputBytes - ring.heldBytes,
    watchers: watchers.size,
  });

  const watched: Watched = {
    ring,
    started() {
      const { exit, endedAtMs, lastSequence, outputBytes, ...begun } = record;
      return { ...view(), record: { ...begun, state: "RUNNING" }, pid: record.pid ?? 0 };
    },
    ended: () => end,
    moved: () => {
      if (record.waits && !isEnding) acknowledge();
    },
    left(watcher) {
      watchers.delete(watcher);
    },
  };

  const held: HeldProcess = {
    get record() {
      return record;
    },
    input,
    view,
    hasEnded: () => isEnding,
    isKnown: () => isKnown,
    known: (signal) => orAborted(knowing.promise, signal),
    async reached(signal) {
      while (connection === undefined && !isEnding) await orAborted(reaching.promise, signal);
      if (isEnding) throw processEnded(record);
    },
    watch({ afterSequence, keepaliveMs, signal }) {
      const { lastSequence } = view();
      if (afterSequence > lastSequence) {
        throw new SandboxdError(
          "SEQUENCE_TRUNCATED",
          `after_sequence: ${afterSequence} is beyond ${lastSequence}, the newest of process "${record.id}"`,
          {
            hint: "resume with a number that this process told",
            metadata: { last_sequence: String(lastSequence) },
          },
        );
      }
      const watcher = createWatcher({ watched, afterSequence, keepaliveMs, signal, clock, pulse });
      watchers.add(watcher);
      disconnect.dueMs = Number.POSITIVE_INFINITY;
      const onAbort = () => {
        const isStopping = signal.reason instanceof SandboxdError && signal.reason.reason === "SHUTTING_DOWN";
        if (watchers.size === 0 && !isStopping) disconnect.dueMs = clock.nowMs() + options.disconnectGraceMs;
      };
      // after the watcher's own, which takes it out
      signal.addEventListener("abort", onAbort, { once: true });
      return watcher.events;
    },
    resize(size, repaints) {
      record = { ...record, terminal: size };
      say(ask.resize(size, repaints));
    },
    signal(signal, scope) {
      say(ask.signal(signal, scope));
    },
    begin(to, status) {
      attached(to, status);
      void hold(to);
    },
    resume() {
      if (record.killsOnDisconnect) disconnect.dueMs = clock.nowMs() + orphanMs;
      void hold(undefined);
    },
    sandboxEnded() {
      void settle("EXITED", sandboxExit(record, clock.nowMs()), undefined).then(() => connection?.close());
    },
    close() {
      closing.abort();
      pulse.remove(disconnect);
      connection?.close();
    },
  };
  return held;
}

/** While a program is held back, all that it is held back for is kept. */
const ringBytes = ({ waits, retainedBytes }: ProcessRecord) => retainedBytes + (waits ? 262_144 : 0);

const named = ({ sandboxId, id }: ProcessRecord) => ({ sandbox: sandboxId, process: id });
