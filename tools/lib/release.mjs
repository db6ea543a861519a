// What of this checkout runs on a host: the launcher, the compiled daemon, the packages that it needs, and its own Node.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { must, root } from "./process.mjs";

/** The folders of the packages that a production installation has, by package-lock.json. */
function packages() {
  const lock = JSON.parse(readFileSync(path.join(root, "package-lock.json"), "utf8"));
  return Object.entries(lock.packages)
    .filter(([name, { dev, optional }]) => name !== "" && !dev && !optional)
    .map(([name]) => name)
    .filter((name) => existsSync(path.join(root, name)));
}

/** Writes a tar file of all that a host needs. The daemon must be compiled. */
export async function packRelease(file) {
  const owner = ["--owner=0", "--group=0", "--numeric-owner"];
  await must("tar", [...owner, "-cf", file, "-C", root, "package.json", "bin", "dist", ...packages()], {
    quiet: true,
  });
}
