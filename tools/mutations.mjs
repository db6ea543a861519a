// npm run mutations: plants known defects into the source, one at a time, and lets the simulation look for each. Prints the
// number of schedules that it took, and what was violated. Fails if one is not found.
//
//   npm run mutations              all of them
//   npm run mutations -- lease     those whose name contains this
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { planted } from "../test/simulation/planted.mjs";
import { pinnedNode } from "./lib/node.mjs";
import { main, root } from "./lib/process.mjs";

/** Schedules after which a defect counts as not found. */
const mostSchedules = 20_000;
const atOnce = 2;

const run = promisify(execFile);
const simulation = path.join(root, "test/simulation");

async function findOne(number) {
  const { stdout } = await run(
    pinnedNode,
    [
      "--import",
      path.join(simulation, "plant.mjs"),
      path.join(simulation, "run.ts"),
      "--count",
      String(mostSchedules),
      "--whole",
    ],
    { env: { ...process.env, SANDBOXD_PLANTED: String(number) }, maxBuffer: 2 ** 26 },
  );
  return JSON.parse(stdout.trimEnd().split("\n").at(-1));
}

await main(async () => {
  const [word = ""] = process.argv.slice(2);
  const queue = [...planted.entries()].filter(([, { name }]) => name.includes(word));
  let missed = 0;
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [number, { name }] = next;
      const { played, failure } = await findOne(number);
      if (failure === undefined) missed++;
      const found = failure === undefined ? "NOT FOUND" : `${played}: ${failure.violation.slice(0, 100)}`;
      console.log(`${name}: ${found}`);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return missed === 0 ? 0 : 1;
});
