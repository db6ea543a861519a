// The one place where sandboxes are sampled: a single timer reads them all, and everybody who wants figures
// (history, streams, the scheduler, metrics) gets them from here.
import { openSandboxSampler, type SampleSource, type SandboxSampler } from "./cgroup-sampler.ts";
import { type Clock, systemClock } from "./clock.ts";
import { createHistory, type History } from "./ring-buffer.ts";
import type { SandboxSample } from "./sample.ts";

/** One round over all sandboxes. */
export interface Tick {
  /** When the round began. Unit: milliseconds of the monotonic clock. */
  readonly monotonicMs: number;
  /** The new samples by sandbox id. */
  readonly samples: ReadonlyMap<string, SandboxSample>;
  /**
   * Sandboxes that are sampled no more since the round before: their cgroup is gone, or could not be read (then
   * onError was told why). Each is told once; its history stays until remove().
   */
  readonly ended: readonly string[];
}

export type TickListener = (tick: Tick) => void;

export interface SamplerOptions {
  /** Time from one round to the next. Unit: milliseconds, 10 or more. */
  readonly intervalMs: number;
  /** Samples kept per sandbox. Default: 300. */
  readonly historySize?: number;
  /**
   * Told of a sandbox that could not be read although it is there (it is sampled no more), and of a listener that
   * threw (it stays subscribed).
   */
  readonly onError: (error: unknown, sandboxId: string | undefined) => void;
  readonly clock?: Clock;
}

/** How the sampler itself fares. Counted since it was made. */
export interface SamplerCounters {
  readonly ticks: number;
  /** Rounds left out because the one before, or something else in the process, took too long. */
  readonly skippedTicks: number;
  readonly samples: number;
  /** Sandboxes that are being sampled now. */
  readonly sandboxes: number;
}

export interface Sampler {
  /**
   * Starts to sample a sandbox and returns its first sample. Undefined when its cgroup is gone already. For an id
   * that is known (started again) the new place counts and the history goes on. Throws the system's error when the
   * cgroup is there but can't be read.
   */
  add(id: string, source: SampleSource): SandboxSample | undefined;
  /** Stops sampling and forgets the history. An id that is not known is success. */
  remove(id: string): void;
  /**
   * Reads all files of one sandbox now, out of turn. It joins the history unless that has one younger than half an
   * interval. Undefined when the sandbox is gone or not known.
   */
  sampleNow(id: string): SandboxSample | undefined;
  latest(id: string): SandboxSample | undefined;
  history(id: string): History | undefined;
  /** Calls the listener after every round until the returned function is called. */
  subscribe(listener: TickListener): () => void;
  /** Changes the pace: the next round is due this long after the last one began. Bounds as of SamplerOptions. */
  setIntervalMs(intervalMs: number): void;
  counters(): SamplerCounters;
  /** Stops the timer and closes all descriptors. May be called again; after it, add() throws. */
  close(): void;
}

const defaultHistorySize = 300;
const minimumIntervalMs = 10;

/** Longest time that a round may hold the event loop before others get a turn. */
const sliceMs = 8;

interface Entry {
  /** Undefined once the sandbox ended. */
  sampler: SandboxSampler | undefined;
  endTold: boolean;
  latest: SandboxSample | undefined;
  /** When the newest sample in the history was taken. */
  keptMs: number;
  readonly history: History;
}

export function createSampler(options: SamplerOptions): Sampler {
  const clock = options.clock ?? systemClock;
  const historySize = options.historySize ?? defaultHistorySize;
  const entries = new Map<string, Entry>();
  const listeners = new Set<TickListener>();
  let intervalMs = checkedInterval(options.intervalMs);
  let begunMs = clock.monotonicMs();
  let dueMs = begunMs + intervalMs;
  let timer: NodeJS.Timeout | undefined;
  let slice: NodeJS.Immediate | undefined;
  let closed = false;
  let ticks = 0;
  let skippedTicks = 0;
  let sampleCount = 0;

  function read(id: string, entry: Entry, everything = false): SandboxSample | undefined {
    if (entry.sampler === undefined) {
      return undefined;
    }
    let sample: SandboxSample | undefined;
    try {
      sample = entry.sampler.sample({ everything });
    } catch (error) {
      options.onError(error, id);
    }
    if (sample === undefined) {
      entry.sampler = undefined;
      return undefined;
    }
    sampleCount++;
    entry.latest = sample;
    // callers may ask out of turn as often as they like without pushing the past out of the history
    if (sample.monotonicMs - entry.keptMs >= intervalMs / 2) {
      entry.keptMs = sample.monotonicMs;
      entry.history.push(sample);
    }
    return sample;
  }

  function schedule(): void {
    timer = setTimeout(tick, Math.max(0, dueMs - clock.monotonicMs()));
  }

  function tick(): void {
    const monotonicMs = clock.monotonicMs();
    begunMs = monotonicMs;
    const late = Math.max(0, Math.floor((monotonicMs - dueMs) / intervalMs));
    skippedTicks += late;
    dueMs += (late + 1) * intervalMs;
    const samples = new Map<string, SandboxSample>();
    const ended: string[] = [];
    const round = [...entries];
    let at = 0;

    function nextSlice(): void {
      slice = undefined;
      const until = clock.monotonicMs() + sliceMs;
      while (at < round.length) {
        const [id, entry] = round[at] as [string, Entry];
        at++;
        visit(id, entry);
        if (clock.monotonicMs() >= until && at < round.length) {
          slice = setImmediate(nextSlice);
          return;
        }
      }
      ticks++;
      tell({ monotonicMs, samples, ended });
      if (!closed) {
        schedule();
      }
    }

    function visit(id: string, entry: Entry): void {
      // it may have been removed since the round began
      if (entries.get(id) !== entry) {
        return;
      }
      // a sample just taken out of turn is as good, and rates over a tiny interval are noise
      const { latest, sampler } = entry;
      const fresh = latest !== undefined && monotonicMs - latest.monotonicMs < intervalMs / 2;
      const sample = fresh && sampler !== undefined ? latest : read(id, entry);
      if (sample !== undefined) {
        samples.set(id, sample);
      } else if (!entry.endTold) {
        entry.endTold = true;
        ended.push(id);
      }
    }

    nextSlice();
  }

  function tell(told: Tick): void {
    for (const listener of [...listeners]) {
      try {
        listener(told);
      } catch (error) {
        options.onError(error, undefined);
      }
    }
  }

  schedule();
  return {
    add(id, source) {
      if (closed) {
        throw new Error(`sampler is closed: cannot add sandbox ${id}`);
      }
      const sampler = openSandboxSampler(source, clock);
      const known = entries.get(id);
      known?.sampler?.close();
      if (sampler === undefined) {
        if (known !== undefined) {
          known.sampler = undefined;
        }
        return undefined;
      }
      const entry = known ?? newEntry(historySize);
      entry.sampler = sampler;
      entry.endTold = false;
      const sample = read(id, entry);
      if (sample !== undefined) {
        entries.set(id, entry);
      }
      return sample;
    },
    remove(id) {
      const entry = entries.get(id);
      entries.delete(id);
      entry?.sampler?.close();
    },
    sampleNow(id) {
      const entry = entries.get(id);
      return entry === undefined ? undefined : read(id, entry, true);
    },
    latest: (id) => entries.get(id)?.latest,
    history: (id) => entries.get(id)?.history,
    subscribe(listener) {
      // a wrapper of its own, so that one function subscribed twice is two subscriptions
      const own: TickListener = (told) => listener(told);
      listeners.add(own);
      return () => {
        listeners.delete(own);
      };
    },
    setIntervalMs(wanted) {
      intervalMs = checkedInterval(wanted);
      dueMs = Math.max(clock.monotonicMs(), begunMs + intervalMs);
      // a round that is still going on schedules the next one itself
      if (!closed && slice === undefined) {
        clearTimeout(timer);
        schedule();
      }
    },
    counters() {
      let sandboxes = 0;
      for (const entry of entries.values()) {
        sandboxes += entry.sampler === undefined ? 0 : 1;
      }
      return { ticks, skippedTicks, samples: sampleCount, sandboxes };
    },
    close() {
      closed = true;
      clearTimeout(timer);
      clearImmediate(slice);
      listeners.clear();
      for (const entry of entries.values()) {
        entry.sampler?.close();
      }
      entries.clear();
    },
  };
}

function newEntry(historySize: number): Entry {
  return {
    sampler: undefined,
    endTold: false,
    latest: undefined,
    keptMs: Number.NEGATIVE_INFINITY,
    history: createHistory(historySize),
  };
}

function checkedInterval(intervalMs: number): number {
  if (!(Number.isFinite(intervalMs) && intervalMs >= minimumIntervalMs)) {
    throw new RangeError(
      `sampling interval ${intervalMs} ms is not a number of ${minimumIntervalMs} or more`,
    );
  }
  return intervalMs;
}
