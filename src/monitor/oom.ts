// What can be said about memory when a sandbox has ended. "The kernel killed something in it for want of memory"
// and "its main process died of that" are different facts: a shell may outlive the compiler that was killed.
import type { MemoryCounters } from "./sample.ts";
import { increase } from "./window.ts";

/** The counters that tell of memory that ran out. */
type OomCounters = Pick<MemoryCounters, "oomEvents" | "oomKills">;

/** What is known of an end. */
export interface ExitEvidence {
  /** Exit code of the main process as the engine tells it: 128 + signal for a death by signal. */
  readonly exitCode: number;
  /**
   * The engine's OOMKilled. It is set by an out-of-memory event anywhere in the sandbox, and some engines lose it
   * when the end follows at once.
   */
  readonly engineOomKilled: boolean;
  /** Whether the daemon or somebody else sent SIGKILL to the sandbox. */
  readonly killRequested: boolean;
  /** Counters when this life of the sandbox began. Absent: they began at 0, as a new cgroup's do. */
  readonly atStart?: OomCounters;
  /**
   * The last counters read. Usually older than the end by up to an interval: the cgroup vanishes with the sandbox,
   * and with it what its files said (kept descriptors answer ENODEV).
   */
  readonly last?: OomCounters;
}

export interface OomFacts {
  /** Times that memory ran out, as far as the last sample and the engine know: a lower bound. */
  readonly oomEvents: number;
  /** Processes killed for it, as far as the last sample knows: a lower bound. */
  readonly oomKills: number;
  /** Whether the main process died of it, to the best of what is known. */
  readonly mainProcessKilledByOom: boolean;
  /**
   * "certain": no other reading of the facts. "likely": SIGKILL and a memory event fit, but the last process killed is
   * not named by any file. "unlikely": SIGKILL without any trace of memory. "ambiguous": SIGKILL was asked for and
   * memory ran out as well.
   */
  readonly confidence: "certain" | "likely" | "unlikely" | "ambiguous";
  /** One sentence for people. */
  readonly explanation: string;
}

const killedExitCode = 137;

/** Decides from values alone. */
export function judgeOom(evidence: ExitEvidence): OomFacts {
  const { exitCode, engineOomKilled, killRequested, atStart, last } = evidence;
  const seenKills = increase(atStart?.oomKills ?? 0, last?.oomKills ?? Number.NaN);
  const seenEvents = increase(atStart?.oomEvents ?? 0, last?.oomEvents ?? Number.NaN);
  const happened = seenKills > 0 || seenEvents > 0 || engineOomKilled;
  const counts = {
    oomEvents: Math.max(seenEvents, seenKills, engineOomKilled ? 1 : 0),
    oomKills: seenKills,
  };
  const verdict = (
    mainProcessKilledByOom: boolean,
    confidence: OomFacts["confidence"],
    explanation: string,
  ): OomFacts => ({ ...counts, mainProcessKilledByOom, confidence, explanation });

  if (exitCode !== killedExitCode) {
    return verdict(
      false,
      "certain",
      happened
        ? `Memory ran out, but the main process went on and ended by itself with exit code ${exitCode}.`
        : `The main process ended with exit code ${exitCode}; memory did not run out.`,
    );
  }
  if (killRequested) {
    return happened
      ? verdict(
          false,
          "ambiguous",
          "The main process was killed on request, and memory ran out as well: either may have come first.",
        )
      : verdict(false, "certain", "The main process was killed on request.");
  }
  if (happened) {
    return verdict(true, "likely", "Memory ran out and the main process was killed by the kernel.");
  }
  return verdict(
    false,
    "unlikely",
    "The main process was killed, by nobody known and with no sign that memory ran out before the last sample.",
  );
}
