// What is compiled, in dist/: the daemon, sandboxctl and the toolbox, made again when a source is newer than the last build. What runs is in
// dist/bundle/ and dist/toolbox/; dist/src/ and dist/gen/ have the same as single modules, for tools and benchmarks.
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pinnedNode } from "./node.mjs";
import { Advice, must, root, run } from "./process.mjs";
import { ensureToolbox } from "./toolbox.mjs";

const stamp = path.join(root, "dist/.built");
const bundler = "tools/bundle.mjs";
const sources = [
  "src",
  "gen",
  bundler,
  "tsconfig.json",
  "tsconfig.build.json",
  "package.json",
  "package-lock.json",
];

function newest(file) {
  const status = statSync(file);
  if (!status.isDirectory()) return status.mtimeMs;
  const below = readdirSync(file).map((name) => newest(path.join(file, name)));
  // A folder's own time moves when a file in it is removed.
  return Math.max(status.mtimeMs, ...below);
}

function isFresh() {
  if (!existsSync(stamp)) return false;
  const built = statSync(stamp).mtimeMs;
  return sources.every((name) => newest(path.join(root, name)) <= built);
}

/** Compiles src/, gen/ and docker/toolbox/ into dist/ unless that is up to date. Fails with the compiler's words. */
export async function ensureBuild({ log }) {
  await ensureToolbox({ log });
  if (isFresh()) return;
  const started = new Date();
  log("compiling");
  const tsc = path.join(root, "node_modules/.bin/tsc");
  const { status } = await run(tsc, ["-p", "tsconfig.build.json"]);
  if (status !== 0) throw new Advice("the sources do not compile: see above");
  await must(pinnedNode, [bundler]);
  writeFileSync(stamp, "");
  // What was saved while the compiler ran is newer than the stamp, and so is compiled next time.
  utimesSync(stamp, started, started);
}
