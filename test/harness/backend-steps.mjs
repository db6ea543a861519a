// Run inside the guest by its own Node: takes steps of a backend from its argument, does one after the other, and prints what each came
// to, as JSON. It can be made to kill itself once a tool has been called so many times, as a daemon is killed: then it prints nothing.
import { performance } from "node:perf_hooks";

const { release, directory, steps, kill } = JSON.parse(process.argv.at(-1));
const backends = `${release}/dist/src/workspace/backend`;
const { openHome } = await import(`${backends}/home.js`);
const { createProjectQuota } = await import(`${backends}/project-quota.js`);
const { projectQuotaObstacle } = await import(`${backends}/project-obstacle.js`);
const { runTool } = await import(`${backends}/tool.js`);

let calls = 0;
/** @type {typeof runTool} */
const run = async (...call) => {
  calls += 1;
  const output = await runTool(...call);
  if (calls === kill?.atCall) process.kill(process.pid, "SIGKILL");
  return output;
};

const home = await openHome(directory, { run: runTool, isMounted: true });
const backend = createProjectQuota({ home, run });
const results = [];
for (const [name, ...args] of steps) {
  const start = performance.now();
  calls = 0;
  try {
    const value =
      name === "obstacle" ? await projectQuotaObstacle(directory, { run }) : await backend[name](...args);
    results.push({ value, calls, ms: Math.round(performance.now() - start) });
  } catch (error) {
    results.push({ reason: error.reason ?? error.name, message: error.message, calls });
  }
}
console.log(JSON.stringify(results));
