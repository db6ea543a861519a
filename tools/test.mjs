// npm test: runs the tests on a private engine, and leaves nothing behind.
//
//   npm test                       all of them
//   npm test -- unit               one kind: unit, simulation, integration, fault or host
//   npm test -- test/unit/store    files whose path contains this
//
// Other arguments go to vitest as they are. The last line is `N passed, N failed, N skipped`.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { ensureDependencies } from "./lib/deps.mjs";
import { ensureGrpcurl } from "./lib/grpcurl.mjs";
import { pinnedNode } from "./lib/node.mjs";
import { Advice, main, root } from "./lib/process.mjs";
import { withScratch } from "./lib/scratch.mjs";

const kinds = ["unit", "simulation", "integration", "fault", "host"];
const withoutEngine = ["unit", "simulation", "host"];
const log = (line) => console.log(`test: ${line}`);

/** What is printed when the tests could not even be counted. */
const nothingRan = "0 passed, 1 failed, 0 skipped";

/** What is named by the arguments: kinds, and parts of paths. */
const namesIn = (asked) => asked.filter((argument) => !argument.startsWith("-"));

const isOf = (kind) => (name) => name === kind || name.includes(`test/${kind}`);

/** Whether any of the tests asked for needs an engine of this machine. */
function needsEngine(asked) {
  const named = namesIn(asked);
  return named.length === 0 || !named.every((name) => withoutEngine.some((kind) => isOf(kind)(name)));
}

/** Whether any of the tests asked for needs a whole host. It is built only when they were named, or none was. */
function needsGuest(asked) {
  const named = namesIn(asked);
  return named.length === 0 || named.some(isOf("host"));
}

function hasTests(kind) {
  const directory = path.join(root, "test", kind);
  if (!existsSync(directory)) return false;
  return readdirSync(directory, { recursive: true }).some((file) => file.endsWith(".test.ts"));
}

/** Whether clients that are not ours are among the tests asked for. */
function needsClients(asked) {
  const named = namesIn(asked);
  return named.length === 0 || named.some(isOf("integration"));
}

/** A path is looked for within the kinds that are named, so that both together would run nothing. */
function assertNames(asked) {
  const named = namesIn(asked);
  const ofKinds = named.filter((name) => kinds.includes(name));
  if (ofKinds.length > 0 && ofKinds.length < named.length)
    throw new Advice(`name kinds (${kinds.join(", ")}) or parts of paths, not both`);
}

function vitestArguments(asked) {
  const named = asked.filter((argument) => kinds.includes(argument));
  const chosen = named.length > 0 ? named : kinds.filter(hasTests);
  return [
    path.join(root, "node_modules/vitest/vitest.mjs"),
    "run",
    "--reporter=default",
    `--reporter=${path.join(root, "tools/lib/summary-reporter.mjs")}`,
    ...chosen.flatMap((kind) => ["--project", kind]),
    ...asked.filter((argument) => !kinds.includes(argument)),
  ];
}

const noGuest = "a whole host is there only for 'npm test' and 'npm test -- host'";

/** Prints which tests were skipped, by reason. Returns the closing line. */
function report(file, status, { hasEngine, guestObstacle }) {
  if (!existsSync(file)) return nothingRan;
  const { passed, failed, skipped } = JSON.parse(readFileSync(file, "utf8"));
  // Node 20 has no Map.groupBy.
  const reasons = new Map();
  for (const test of skipped) {
    const isOnGuest = test.file.startsWith("test/host/");
    const missing = isOnGuest
      ? (guestObstacle ?? noGuest)
      : hasEngine
        ? "no reason given"
        : "there is no engine";
    const reason = test.why ?? missing;
    reasons.set(reason, [...(reasons.get(reason) ?? []), test]);
  }
  for (const [reason, tests] of reasons) {
    console.log(`\nskipped (${reason}):`);
    for (const { file: module, name } of tests) console.log(`  ${module}: ${name}`);
  }
  // vitest also fails for what is no test: a set-up that threw, no file found.
  const counted = status !== 0 && failed === 0 ? 1 : failed;
  return `${passed} passed, ${counted} failed, ${skipped.length} skipped`;
}

await main(async () => {
  const asked = process.argv.slice(2);
  let closing = nothingRan;
  try {
    assertNames(asked);
    await ensureDependencies({ log });
    if (needsClients(asked)) {
      const obstacle = await ensureGrpcurl({ log });
      if (obstacle !== undefined) log(obstacle);
    }
    const engine = needsEngine(asked) ? "optional" : "none";
    // The program that tries the isolation from inside is compiled by its test; curl and openssl are clients like any other.
    // With libfaketime a daemon has a wall clock of its own.
    const packages = ["gcc", "libc6-dev", "curl", "openssl", "libfaketime"];
    return await withScratch(
      { kind: "test", engine, guest: needsGuest(asked), packages, log },
      async ({ directory, runChild, ...found }) => {
        const summary = path.join(directory, "summary.json");
        const status = await runChild(pinnedNode, vitestArguments(asked), { SANDBOXD_TEST_SUMMARY: summary });
        closing = report(summary, status, found);
        return status;
      },
    );
  } finally {
    // After everything else, and after the error that ended the run, if one did.
    process.on("exit", () => console.log(`\n${closing}`));
  }
});
