// The npm packages: installed when they are missing or differ from package-lock.json.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { ensureNode, requireNode } from "./node.mjs";
import { Advice, root, run } from "./process.mjs";

function packagesOf(file) {
  return JSON.parse(readFileSync(path.join(root, file), "utf8")).packages;
}

/**
 * Whether node_modules holds what the lock asks for: npm's own record of what it installed, compared by version.
 * Optional packages are not compared, as most of them are for other platforms.
 */
function isFresh() {
  const record = "node_modules/.package-lock.json";
  if (!existsSync(path.join(root, record))) return false;
  const installed = packagesOf(record);
  return Object.entries(packagesOf("package-lock.json")).every(
    ([name, { version, optional }]) => name === "" || optional || installed[name]?.version === version,
  );
}

/**
 * Installs the packages when needed, and the pinned Node. Install scripts of dependencies don't run: none is needed
 * here, and this may be root.
 */
export async function ensureDependencies({ log }) {
  requireNode();
  if (!isFresh()) {
    log("installing npm packages (npm ci)");
    const { status, output } = await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], {
      quiet: true,
    });
    if (status !== 0) throw new Advice(`npm ci failed: ${output.trim().split("\n").slice(0, 4).join(" ")}`);
  }
  await ensureNode({ log });
}
