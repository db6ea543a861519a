// Plays schedules, one seed after the other, in a process of its own whose time is virtual. The last line of the output is
// JSON: how many were played, and the first that violated something, cut down to what it takes.
//
//   node test/simulation/run.ts --from 1 --count 1000
//   node test/simulation/run.ts --from 42 --trace         one, with everything that happens in it

import { parseArgs } from "node:util";
import { scheduleOf } from "./schedule.ts";
import { shrink } from "./shrink.ts";
import { takeOver } from "./virtual-time.ts";
import { play } from "./world.ts";

/** What is printed last. */
export interface Report {
  readonly played: number;
  readonly failure?: {
    readonly seed: number;
    readonly violation: string;
    readonly steps: number;
    /** Of the schedule that is left. */
    readonly trace: readonly string[];
  };
}

const { values } = parseArgs({
  options: {
    from: { type: "string", default: "1" },
    count: { type: "string", default: "1" },
    trace: { type: "boolean", default: false },
    /** Goes on after a violation, and tells only what it was. */
    all: { type: "boolean", default: false },
    whole: { type: "boolean", default: false },
  },
});

async function run(from: number, count: number): Promise<Report> {
  for (let seed = from; seed < from + count; seed++) {
    const schedule = scheduleOf(seed);
    const { violation, trace } = await play(schedule, { isTraced: values.trace });
    if (values.trace) console.log(trace.join("\n"));
    if (violation === undefined) continue;
    if (values.all) {
      console.log(`${seed} ${violation}`);
      continue;
    }
    const played = seed - from + 1;
    if (values.whole)
      return { played, failure: { seed, violation, steps: schedule.steps.length, trace: [] } };
    const least = await shrink(
      schedule,
      async (candidate) => (await play(candidate, { isTraced: false })).violation !== undefined,
    );
    const last = await play(least, { isTraced: true });
    const steps = least.steps.length;
    return { played, failure: { seed, violation: last.violation ?? violation, steps, trace: last.trace } };
  }
  return { played: count };
}

takeOver();
// errors are part of the game here; where they were made, matters only to who looks at one schedule
if (!values.trace) Error.stackTraceLimit = 0;
console.log(JSON.stringify(await run(Number(values.from), Number(values.count))));
