// Run inside the guest by its own Node, bundled with what it tests: takes steps of a backend from its argument, does one after the other, and
// prints what each came to, as JSON. It can be made to kill itself once a tool has been called so many times, as a daemon is killed: then it prints nothing.

import { performance } from "node:perf_hooks";
import { SandboxdError } from "../../src/errors.ts";
import { openHome } from "../../src/workspace/backend/home.ts";
import { projectQuotaObstacle } from "../../src/workspace/backend/project-obstacle.ts";
import { createProjectQuota } from "../../src/workspace/backend/project-quota.ts";
import { runTool } from "../../src/workspace/backend/tool.ts";

const { directory, steps, kill } = JSON.parse(process.argv.at(-1) ?? "");

let calls = 0;
const run: typeof runTool = async (...call) => {
  calls += 1;
  const output = await runTool(...call);
  if (calls === kill?.atCall) process.kill(process.pid, "SIGKILL");
  return output;
};

const home = await openHome(directory, { run: runTool, isMounted: true });
const backend = createProjectQuota({ home, run });
const methods = new Map<string, unknown>(Object.entries(backend));
const call = (name: string, args: unknown[]) =>
  (methods.get(name) as (...args: unknown[]) => unknown)(...args);

const results = [];
for (const [name, ...args] of steps) {
  const start = performance.now();
  calls = 0;
  try {
    const value =
      name === "obstacle" ? await projectQuotaObstacle(directory, { run }) : await call(name, args);
    results.push({ value, calls, ms: Math.round(performance.now() - start) });
  } catch (error) {
    const { message } = error as Error;
    results.push({ reason: error instanceof SandboxdError ? error.reason : "", message, calls });
  }
}
console.log(JSON.stringify(results));
