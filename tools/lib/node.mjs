// The pinned Node: the version that package.json names, whatever Node started the tools.
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { installPackages } from "./packages.mjs";
import { Advice, must, root, run } from "./process.mjs";

/** Where the pinned Node's binary is once ensureNode has returned. */
export const pinnedNode = path.join(root, "node_modules/node/bin/node");

/** Runs the daemon and its other commands with that Node, and with what keeps its memory small. */
export const launcher = path.join(root, "bin/sandboxd");

/** The oldest Node that can run the tools themselves. */
const oldestMajor = 20;

function pinnedVersion() {
  return JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")).dependencies.node;
}

/** What keeps the pinned Node from running: undefined when nothing does. */
async function obstacle() {
  const { status, output } = await run(pinnedNode, ["--version"], { quiet: true });
  if (status !== 0) return output.trim();
  return output.trim() === `v${pinnedVersion()}` ? undefined : `it is ${output.trim()}`;
}

/** Fails with one line of advice when the Node that runs this is too old. */
export function requireNode() {
  const [major] = process.versions.node.split(".");
  if (Number(major) < oldestMajor) {
    throw new Advice(
      `Node ${oldestMajor} or newer is needed, this is ${process.version}: install it, then run again`,
    );
  }
}

/** Fetches the package that holds the binary for this processor, and puts the binary where the package `node` has it. */
async function fetchNode({ log }) {
  const name = `node-linux-${process.arch}@${pinnedVersion()}`;
  log(`fetching ${name}`);
  const directory = mkdtempSync(path.join(tmpdir(), "sandboxd-node-"));
  try {
    await must("npm", ["pack", "--silent", "--pack-destination", directory, name], { quiet: true });
    const archive = path.join(directory, `node-linux-${process.arch}-${pinnedVersion()}.tgz`);
    await must("tar", ["-xzf", archive, "-C", directory, "package/bin/node"], { quiet: true });
    mkdirSync(path.dirname(pinnedNode), { recursive: true });
    rmSync(pinnedNode, { force: true });
    copyFileSync(path.join(directory, "package/bin/node"), pinnedNode);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Puts the pinned Node in place. The npm package `node` fetches its binary in an install script, which many machines
 * rightly refuse to run: then the binary is fetched directly.
 */
export async function ensureNode({ log }) {
  if (process.platform !== "linux" || !["x64", "arm64"].includes(process.arch)) {
    throw new Advice(
      `sandboxd runs on Linux on x64 and arm64, not on ${process.platform} on ${process.arch}`,
    );
  }
  const isLibraryMissing = (reason) => reason?.includes("shared libraries");
  let reason = await obstacle();
  if (reason !== undefined && !isLibraryMissing(reason)) {
    await fetchNode({ log });
    reason = await obstacle();
  }
  if (isLibraryMissing(reason)) {
    // Node 26 is linked to libraries that a small system lacks and an older Node did without.
    await installPackages(["libatomic1", "libstdc++6"], { log, why: `Node ${pinnedVersion()}` });
    reason = await obstacle();
  }
  if (reason !== undefined)
    throw new Advice(`the pinned Node ${pinnedVersion()} does not run here: ${reason}`);
}
