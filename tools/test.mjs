// npm test: runs the tests on a private engine, and leaves nothing behind.
//
//   npm test                       all of them
//   npm test -- unit               one kind: unit, simulation, integration, fault or host
//   npm test -- test/unit/store    files whose path contains this
//
// Other arguments go to vitest as they are. The last line is `N passed, N failed, N skipped`.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { ensureBrowser } from "./lib/browser.mjs";
import { ensureDependencies } from "./lib/deps.mjs";
import { ensureGrpcurl } from "./lib/grpcurl.mjs";
import { pinnedNode } from "./lib/node.mjs";
import { Advice, main, root } from "./lib/process.mjs";
import { withScratch } from "./lib/scratch.mjs";

const kinds = ["unit", "simulation", "integration", "fault", "host"];

/**
 * In a run of everything, the whole host comes last, and only if it is its turn within the first of these times from the start;
 * each of its tests begins within the second. In an emulator they take ten times as long as elsewhere, and the run is to end
 * within 25 minutes on a slow machine too.
 */
const guestWithinMs = 12 * 60_000;
const guestTestsBeginWithinMs = 17 * 60_000;

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

/** Whether tests on a whole host were asked for by name. */
const namesGuest = (asked) => namesIn(asked).some(isOf("host"));

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

/** The kinds that are run, in the parts in which they are: of a run of everything, the whole host last. */
function partsOf(asked) {
  const named = asked.filter((argument) => kinds.includes(argument));
  if (named.length > 0) return [named];
  const all = kinds.filter(hasTests);
  return namesIn(asked).length > 0 ? [all] : [all.filter((kind) => kind !== "host"), ["host"]];
}

function vitestArguments(asked, chosen) {
  return [
    path.join(root, "node_modules/vitest/vitest.mjs"),
    "run",
    "--reporter=default",
    `--reporter=${path.join(root, "tools/lib/summary-reporter.mjs")}`,
    // with the part of it that has a name of its own, as fault-beside
    ...chosen.flatMap((kind) => ["--project", `${kind}*`]),
    ...asked.filter((argument) => !kinds.includes(argument)),
  ];
}

const noTime = "no time was left for the emulated host: 'npm test -- host' runs it";

/** What the summary of a part says, and that it failed for what is no test: a set-up that threw, no file found. */
function readSummary(file, status) {
  if (!existsSync(file)) return { passed: 0, failed: 1, skipped: [] };
  const summary = JSON.parse(readFileSync(file, "utf8"));
  return status !== 0 && summary.failed === 0 ? { ...summary, failed: 1 } : summary;
}

/** Prints which tests were skipped, by reason. Returns the closing line. */
function report(summaries, { hasEngine, guestObstacle, isLimited }) {
  const sumOf = (count) => summaries.map(count).reduce((sum, one) => sum + one, 0);
  const skipped = summaries.flatMap((summary) => summary.skipped);
  // Node 20 has no Map.groupBy.
  const reasons = new Map();
  for (const test of skipped) {
    const isOnGuest = test.file.startsWith("test/host/");
    const missing = isOnGuest
      ? (guestObstacle ?? (isLimited ? noTime : "no reason given"))
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
  const passed = sumOf((summary) => summary.passed);
  const failed = sumOf((summary) => summary.failed);
  return `${passed} passed, ${failed} failed, ${skipped.length} skipped`;
}

/** Runs the parts one after the other. Resolves to their summaries, the highest status, and why there was no whole host. */
async function runParts(asked, { directory, runChild, prepareGuest }) {
  const parts = partsOf(asked);
  const isLimited = parts.length > 1;
  const startMs = Date.now();
  const summaries = [];
  let guestObstacle;
  let worst = 0;
  for (const [index, chosen] of parts.entries()) {
    const isInTime = !isLimited || Date.now() < startMs + guestWithinMs;
    const isWanted = chosen.includes("host") && (isLimited || namesGuest(asked));
    if (isWanted && isInTime) guestObstacle = await prepareGuest();
    const summary = path.join(directory, `summary-${index}.json`);
    const status = await runChild(pinnedNode, vitestArguments(asked, chosen), {
      SANDBOXD_TEST_SUMMARY: summary,
      ...(isLimited ? { SANDBOXD_TEST_GUEST_UNTIL: String(startMs + guestTestsBeginWithinMs) } : {}),
    });
    summaries.push(readSummary(summary, status));
    worst = Math.max(worst, status);
  }
  return { summaries, status: worst, guestObstacle, isLimited };
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
      await ensureBrowser({ log });
    }
    const engine = needsEngine(asked) ? "optional" : "none";
    // The program that tries the isolation from inside is compiled by its test; curl and openssl are clients like any other.
    // With libfaketime a daemon has a wall clock of its own. Workspaces are kept on file systems that tests make;
    // python3 has pseudo terminals.
    const packages = [
      "gcc",
      "libc6-dev",
      "curl",
      "openssl",
      "libfaketime",
      "btrfs-progs",
      "e2fsprogs",
      "python3",
    ];
    return await withScratch({ kind: "test", engine, packages, log }, async ({ hasEngine, ...scratch }) => {
      const { summaries, status, ...run } = await runParts(asked, scratch);
      closing = report(summaries, { hasEngine, ...run });
      return status;
    });
  } finally {
    // After everything else, and after the error that ended the run, if one did.
    process.on("exit", () => console.log(`\n${closing}`));
  }
});
