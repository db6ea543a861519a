// Plays schedules, one seed after the other: node test/simulation/run.ts --from 1 --count 1000 [--trace]
// Prints one line of JSON: how many were played, and the first that violated something, cut down.

import { parseArgs } from "node:util";
import { scheduleOf } from "./schedule.ts";
import { takeOver } from "./virtual-time.ts";
import { play } from "./world.ts";

const { values } = parseArgs({
  options: {
    from: { type: "string", default: "1" },
    count: { type: "string", default: "1" },
    trace: { type: "boolean", default: false },
    all: { type: "boolean", default: false },
  },
});

const began = process.hrtime.bigint();
// errors are part of the game here; where they were made, matters to nobody
if (!values.trace) Error.stackTraceLimit = 0;
takeOver();
const from = Number(values.from);
const count = Number(values.count);
for (let seed = from; seed < from + count; seed++) {
  const { violation, trace } = await play(scheduleOf(seed), { isTraced: values.trace });
  if (values.trace) console.log(trace.join("\n"));
  if (violation === undefined) continue;
  console.log(seed, violation.slice(0, 300));
  if (!values.all) break;
}
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
const { user, system } = process.cpuUsage();
console.log(`${(count / seconds).toFixed(0)} a second, ${((user + system) / count / 1_000).toFixed(2)} ms of CPU each`);
